"""The recipe room's preflight rules as a verdict: warnings at most, or an error that names every broken rule."""

import sys
from collections.abc import Iterable

from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError, Severity
from sdbuild.recipe.load import LoadedRecipe
from sdbuild.recipe.preflight import preflight
from sdbuild.recipe.target import Target


def check_rules(
    loaded: LoadedRecipe, targets: Iterable[Target], facts: CheckpointFacts | None
) -> tuple[Diagnostic, ...]:
    """Apply the rules for some targets; rules that the recipe allows to be broken are passed over.

    Returns:
        The warnings, each once.

    Raises:
        RecipeError: with every broken rule.
    """
    broken: list[Diagnostic] = []
    warnings: dict[Diagnostic, None] = {}
    for target in {target.name: target for target in targets}.values():
        for found in preflight(loaded, target, facts):
            if found.severity is Severity.ERROR:
                broken.append(found)
            elif found.severity is Severity.WARNING:
                warnings[found] = None
    if broken:
        raise RecipeError(broken)
    return tuple(warnings)


def warn(warnings: Iterable[Diagnostic]) -> None:
    """Write warnings to standard error."""
    for warning in warnings:
        print(f"warning: {warning.render()}", file=sys.stderr)
