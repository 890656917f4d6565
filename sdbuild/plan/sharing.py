"""Which other recipes ask for the same work as a graph's actions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sdbuild.errors import SdbuildError
from sdbuild.plan.planner import Plan, load, make_graph
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes


def shared_with(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Task name → the other recipes of the catalogue that share the action; recipes that do not load are passed over.

    A checkpoint given by `source=` stands for the model in every recipe that names the same one.
    """
    recipe = plan.loaded.recipe
    wanted = {action.identity: action.name for action in plan.graph}
    shared: dict[str, list[str]] = {}
    for path in find_recipes(catalogue_directories("recipes", Path.cwd())):
        if path.samefile(plan.loaded.path):
            continue
        try:
            loaded, targets = load(replace(plan.options, recipe=str(path)))
            same_model = loaded.recipe.model == recipe.model
            options = plan.options if same_model else replace(plan.options, source=None)
            graph = make_graph(loaded, targets, options)
        except SdbuildError:
            continue
        for action in graph:
            if action.identity in wanted:
                shared.setdefault(wanted[action.identity], []).append(loaded.recipe.name)
    return {name: tuple(dict.fromkeys(recipes)) for name, recipes in shared.items()}
