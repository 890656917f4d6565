"""The recipe room's preflight rules as a verdict: nothing, or an error that names every broken rule."""

from collections.abc import Iterable

from sdbuild.recipe import CheckpointFacts, Diagnostic, LoadedRecipe, RecipeError, Severity, Target, preflight


def check_rules(loaded: LoadedRecipe, targets: Iterable[Target], facts: CheckpointFacts | None) -> None:
    """Apply the rules for some targets; rules that the recipe allows to be broken are passed over.

    Raises:
        RecipeError: with every broken rule.
    """
    broken: list[Diagnostic] = []
    for target in {target.name: target for target in targets}.values():
        broken += [found for found in preflight(loaded, target, facts) if found.severity is Severity.ERROR]
    if broken:
        raise RecipeError(broken)
