"""`check`: every mistake of recipes and targets."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sdbuild.console.command import VariableCommand
from sdbuild.console.variables import RECIPE, SOURCE
from sdbuild.errors import SdbuildError
from sdbuild.plan.accounts import Accounts
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.options import Options, parse_options
from sdbuild.plan.planner import load, make_plan
from sdbuild.plan.sources import local_facts
from sdbuild.plan.status import Statuses
from sdbuild.plan.verdict import check_rules, warn
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, find_targets
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import LoadedRecipe, load_target
from sdbuild.recipe.references import ModelKind
from sdbuild.store import Store


class Command(VariableCommand):
    """Validate recipes and targets."""

    name = "check"
    doc_purpose = "validate every recipe and target, or the one that is named"
    variables = (RECIPE, SOURCE)

    def act(self, variables: Mapping[str, str]) -> int:
        """Write every mistake to standard error."""
        options = parse_options(variables)
        if "recipe" in variables:
            references = [options.recipe]
            target_paths: list[Path] = []
        else:
            references = [str(path) for path in find_recipes(_recipes())]
            target_paths = list(find_targets(_targets()))
        broken: dict[str, str] = {}
        for path in target_paths:
            try:
                load_target(str(path), _targets())
            except RecipeError as error:
                broken[str(path)] = str(error)
        for reference in references:
            try:
                self._check_recipe(reference, options)
            except SdbuildError as error:
                broken[reference] = str(error)
        # Two recipes may stumble over one target: what is wrong with it is said once.
        print("\n\n".join(dict.fromkeys(broken.values())), end="\n" if broken else "", file=sys.stderr)
        counts = f"{len(references)} recipes, {len(target_paths)} targets"
        print(f"{counts}: {len(broken)} with mistakes" if broken else f"{counts}: all valid")
        return 2 if broken else 0

    def _check_recipe(self, reference: str, options: Options) -> None:
        options = replace(options, recipe=reference)
        loaded, targets = load(options)
        source = options.source
        facts = local_facts(source, loaded.recipe.model.prediction_type) if source is not None else None
        warn(check_rules(loaded, targets.values(), facts))
        if source is not None or _names_local_files(loaded):
            plan = make_plan(options)
            store = Store(cache_directory(), read_only=True)
            accounts = Accounts(plan.graph, Statuses(plan.graph, store, plan.outputs), store)
            accounts.check()
            print("".join(f"warning: {warning}\n" for warning in accounts.warnings()), end="", file=sys.stderr)


def _names_local_files(loaded: LoadedRecipe) -> bool:
    """Whether a recipe names files or directories, all of which are here."""
    kinds = (ModelKind.DIRECTORY, ModelKind.FILE)
    local = [reference for _, reference in loaded.recipe.references() if reference.kind in kinds]
    return bool(local) and all(loaded.directory_of(reference).exists() for reference in local)


def _recipes() -> list[Path]:
    return catalogue_directories("recipes", Path.cwd())


def _targets() -> list[Path]:
    return catalogue_directories("targets", Path.cwd())
