"""`recipes`: what can be built."""

from collections.abc import Mapping
from pathlib import Path

from sdbuild.console.command import VariableCommand
from sdbuild.console.tables import write_table
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import load_recipe


class Command(VariableCommand):
    """List the recipes."""

    name = "recipes"
    doc_purpose = "list the recipes, your own first"

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the table of recipes."""
        rows, status = [], 0
        for path in find_recipes(_recipes()):
            try:
                recipe = load_recipe(str(path), _recipes()).recipe
            except RecipeError:
                rows.append((path.stem, "not valid: see `check`", "", ""))
                status = 2
            else:
                rows.append((recipe.name, recipe.model.version, ", ".join(recipe.targets), recipe.description))
        write_table(("recipe", "model", "targets", "description"), rows)
        return status


def _recipes() -> list[Path]:
    return catalogue_directories("recipes", Path.cwd())
