"""The recipe room's preflight rules as a verdict: nothing, or an error that names every broken rule."""

from collections.abc import Iterable

from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError, Severity
from sdbuild.recipe.load import LoadedRecipe
from sdbuild.recipe.preflight import preflight
from sdbuild.recipe.target import Target


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
