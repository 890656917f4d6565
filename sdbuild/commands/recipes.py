"""`recipes`: what can be built."""

from collections.abc import Mapping
from pathlib import Path

from sdbuild.commands.command import OwnCommand
from sdbuild.commands.tables import write_table
from sdbuild.plan.options import parse_options
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import load_recipe


class RecipesCommand(OwnCommand):
    """List the recipes."""

    name = "recipes"
    doc_purpose = "list the recipes, your own first"

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the table of recipes."""
        parse_options(variables, self.variables, "recipes")
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
