"""Preflight: refuse before any work what is known to fail hours later."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.facts import CheckpointFacts, known_facts
from sdbuild.recipe.diagnostics import Diagnostic, Severity, in_order
from sdbuild.recipe.load import LoadedRecipe, resolve_for_target, tree_for
from sdbuild.recipe.rules.registry import RULES
from sdbuild.recipe.rules.rule import Context
from sdbuild.recipe.target import Target
from sdbuild.recipe.validation import find


def preflight(loaded: LoadedRecipe, target: Target, facts: CheckpointFacts | None) -> list[Diagnostic]:
    """Every rule that the recipe breaks for one target.

    Args:
        loaded: the recipe.
        target: one of its targets.
        facts: what is known of the checkpoint; None to go by its name, if it is a published one.

    Returns:
        Diagnostics in the order of the recipe's lines. Those of rules that the recipe names in `allow` are `OVERRULED`:
        the build goes on and its bundle says so. It goes on after a `WARNING` too.
    """
    resolved = resolve_for_target(loaded, target)
    target = target.serving(resolved.generation).model_copy(update={"compute_unit": resolved.compute_unit})
    root, known = tree_for(loaded.root, target.name), facts or known_facts(resolved.model)
    found = []
    for index, recipe in enumerate(resolved.at_sizes()):
        context = Context(recipe, target, known, root, loaded.lock)
        found += list(_broken(context, index))
    return list(in_order(dict.fromkeys(found)))


def _broken(context: Context, index: int) -> Iterator[Diagnostic]:
    """The rules that a recipe breaks at one of its sizes; what is wrong at every size is the same diagnostic."""
    for rule in RULES.values():
        severity = Severity.OVERRULED if rule.name in context.recipe.allow else rule.severity
        purpose = "without this warning" if rule.severity is Severity.WARNING else "all the same"
        for finding in rule.check(context):
            location = finding.location
            if index and location[:1] == ("latent",):
                location = ("sizes", index - 1, *location[1:])
            span, _ = find(context.root, location)
            help_ = f"{finding.help}; to build it {purpose}: `allow: [{rule.name}]`"
            message = f"{finding.message} [{rule.name}]"
            yield Diagnostic(rule.name, message, span, help_, rule.reason, rule.source, severity)


def overruled(diagnostics: list[Diagnostic]) -> tuple[str, ...]:
    """The names of the rules that the recipe broke and overruled, sorted, for the bundle to tell."""
    return tuple(sorted({diagnostic.code for diagnostic in diagnostics if diagnostic.severity is Severity.OVERRULED}))
