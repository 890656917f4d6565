"""The commands that doit does not have: plan, check, recipes, targets, lint. Tables go to standard output."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from doit import doit_cmd
from doit.cmd_base import Command

from sdbuild.errors import SdbuildError
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import BUILD_VARIABLES, parse_options
from sdbuild.plan.planner import load, make_plan
from sdbuild.plan.polite import Polite
from sdbuild.plan.rules import check_rules
from sdbuild.plan.sources import local_facts
from sdbuild.plan.tables import write_table
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, find_targets
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import load_recipe, load_target


def command_line_variables() -> dict[str, str]:
    """The `name=value` words of the command line."""
    # doit.get_var gives one at a time; unknown names can be refused only by one who sees all of them.
    return dict(doit_cmd._CMDLINE_VARS or {})


class OwnCommand(Polite, Command):  # type: ignore[misc]
    """A command that takes variables alone."""

    variables: ClassVar[tuple[str, ...]] = ()

    def execute(self, opt_values: Mapping[str, Any], pos_args: Sequence[str]) -> int:
        """Run the command; the exit status is 0, or that of the error."""
        if pos_args:
            hint = nearest(pos_args[0], self.variables)
            raise PlanError(f"{self.name}: unknown word '{pos_args[0]}'{hint}; usage: {self.name} {self.doc_usage}")
        return self.act(command_line_variables())

    def act(self, variables: Mapping[str, str]) -> int:
        """Do what the command is for and return the exit status."""
        raise NotImplementedError


class PlanCommand(OwnCommand):
    """Show what a build would do."""

    name = "plan"
    doc_purpose = "show which actions are cached, which will run and why, and memory on the devices; nothing is written"
    doc_usage = "[recipe=NAME] [target=NAME] [source=PATH] [out=DIR] [verify=off]"
    variables = BUILD_VARIABLES

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the plan's table."""
        from sdbuild.plan.memory import show_memory
        from sdbuild.plan.preflight import Preflight
        from sdbuild.plan.sharing import shared_with
        from sdbuild.plan.show import show_plan
        from sdbuild.plan.status import Statuses
        from sdbuild.store import Store

        plan = make_plan(parse_options(variables, self.variables, "plan"))
        store = Store(cache_directory(), read_only=True)
        statuses = Statuses(plan.graph, store, plan.outputs)
        preflight = Preflight(plan, statuses, store)
        preflight.before_the_build()
        show_plan(plan, store, shared_with(plan))
        show_memory(plan, store, statuses, preflight.facts)
        return 0


class CheckCommand(OwnCommand):
    """Validate recipes and targets."""

    name = "check"
    doc_purpose = "validate every recipe and target, or the one that is named"
    doc_usage = "[recipe=NAME] [source=PATH]"
    variables = ("recipe", "source")

    def act(self, variables: Mapping[str, str]) -> int:
        """Write every mistake to standard error."""
        options = parse_options(variables, self.variables, "check")
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
                self._check_recipe(reference, options.source)
            except SdbuildError as error:
                broken[reference] = str(error)
        # Two recipes may stumble over one target: what is wrong with it is said once.
        print("\n\n".join(dict.fromkeys(broken.values())), end="\n" if broken else "", file=sys.stderr)
        counts = f"{len(references)} recipes, {len(target_paths)} targets"
        print(f"{counts}: {len(broken)} with mistakes" if broken else f"{counts}: all valid")
        return 2 if broken else 0

    def _check_recipe(self, reference: str, source: Path | None) -> None:
        options = parse_options({"recipe": reference}, self.variables, "check")
        loaded, targets = load(options)
        facts = local_facts(source, loaded.recipe.model.prediction_type) if source is not None else None
        check_rules(loaded, targets.values(), facts)


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


class TargetsCommand(OwnCommand):
    """List the targets."""

    name = "targets"
    doc_purpose = "list the device targets, your own first"

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the table of targets."""
        parse_options(variables, self.variables, "targets")
        rows, status = [], 0
        for path in find_targets(_targets()):
            try:
                target = load_target(str(path), _targets())
            except RecipeError:
                rows.append((path.stem, "not valid: see `check`", *[""] * 5))
                status = 2
            else:
                rows.append(_target_row(target))
        write_table(("target", "device", "chip", "memory", "system", "compute unit", "attention"), rows)
        return status


class LintCommand(OwnCommand):
    """Lint built bundles."""

    name = "lint"
    doc_purpose = "check built bundles against what the Swift package reads"
    doc_usage = "[recipe=NAME] [target=NAME] [out=DIR]"
    variables = ("recipe", "target", "out")

    def act(self, variables: Mapping[str, str]) -> int:
        """Write every violation."""
        from sdbuild.plan.lint import lint_bundles

        return lint_bundles(parse_options(variables, self.variables, "lint"))


COMMANDS = (PlanCommand, CheckCommand, RecipesCommand, TargetsCommand, LintCommand)


def _target_row(target: Any) -> tuple[str, ...]:
    return (
        target.name,
        target.device,
        target.chip,
        f"{target.memory_gb:g} GB, {target.app_memory_gb:g} for an app",
        target.system,
        target.compute_unit.value,
        target.attention_implementation.value,
    )


def _recipes() -> list[Path]:
    return catalogue_directories("recipes", Path.cwd())


def _targets() -> list[Path]:
    return catalogue_directories("targets", Path.cwd())
