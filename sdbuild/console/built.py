"""What a command needs built before it can start: looked up in the cache, else built by a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild import isolation
from sdbuild.bundle.document import NOT_VERIFIED
from sdbuild.bundle.layout import DOCUMENT
from sdbuild.plan.action import Action
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import BUILD_VARIABLES, Options, is_recipe_setting, parse_options
from sdbuild.plan.planner import Plan, load, make_plan
from sdbuild.plan.status import Status, Statuses
from sdbuild.store import Store


class BuildFailedError(PlanError):
    """A build that a command needed has failed; it has said why."""

    def __init__(self, exit_status: int, what: str) -> None:
        super().__init__(f"{what} could not be built; see above")
        self.exit_status = exit_status


@dataclass(frozen=True)
class BuildRequest:
    """A build for one target, as a command's variables ask for it.

    Attributes:
        variables: the variables of the build among the command's, the target always among them.
        options: the same, checked.
        target: the target; the recipe's first where none was named.
    """

    variables: Mapping[str, str]
    options: Options
    target: str

    @classmethod
    def from_variables(
        cls, variables: Mapping[str, str], command: str, known: Iterable[str] = BUILD_VARIABLES
    ) -> "BuildRequest":
        """The build that a command needs.

        Args:
            variables: the words of the command line.
            command: the command's name, for messages.
            known: the command's own variables; what it does not know itself may be a setting of the recipe.

        Raises:
            RecipeError: the recipe or one of its targets cannot be used.
            PlanError: a variable has no meaning.
        """
        own = tuple(known)
        chosen = {
            name: value for name, value in variables.items() if name in BUILD_VARIABLES or is_recipe_setting(name, own)
        }
        options = parse_options(chosen, BUILD_VARIABLES, command)
        if options.target is None:
            _, targets = load(options)
            chosen["target"] = next(iter(targets))
            if len(targets) > 1:
                others = ", ".join(name for name in targets if name != chosen["target"])
                print(f"target={chosen['target']}, the recipe's first; there are also {others}", file=sys.stderr)
        return cls(chosen, parse_options(chosen, BUILD_VARIABLES, command), chosen["target"])

    def with_variables(self, **changes: str) -> "BuildRequest":
        """The same build with other variables."""
        changed = {**self.variables, **changes}
        return BuildRequest(changed, parse_options(changed), self.target)


def bundle(request: BuildRequest) -> Path:
    """The bundle's place, once it is up to date: never a worse bundle than the one that stands there.

    A verified bundle serves where none was asked for, and one that was built without verification where nothing was
    said about it.

    Raises:
        BuildFailedError: it could not be built.
        PlanError: a verified bundle, which is out of date, would be replaced by an unverified one.
    """
    verified, unverified = request.with_variables(verify="on"), request.with_variables(verify="off")
    good_enough = [verified] if request.variables.get("verify") == "on" else [verified, unverified]
    for build in good_enough:
        plan, action = _planned(build)
        status, place = _status(plan, action), plan.outputs[action.name]
        if status.cached:
            return place
        if status.digest is not None and (build.options.verify or not _is_verified(place)):
            _build(build, action.name)  # it is in the cache, and only put at its place
            return place
    if not request.options.verify and _is_verified(place):
        raise PlanError(
            f"{place} is a verified bundle, and out of date: verify=off would replace it by one that nothing was "
            "compared with. Leave out verify=off, or give the new one another place with out=FOLDER."
        )
    if place.exists():
        print(f"{place} is out of date, and built again", file=sys.stderr)
    _build(request, _planned(request)[1].name)
    return place


def _planned(request: BuildRequest) -> tuple[Plan, Action]:
    plan = make_plan(request.options)
    return plan, next(action for action in plan.graph.products() if action.stage.name == "bundle")


def _is_verified(place: Path) -> bool:
    """Whether a bundle that stands somewhere was compared with the original models."""
    try:
        return bool(json.loads((place / DOCUMENT).read_bytes())["verification"] != NOT_VERIFIED)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def artifacts(request: BuildRequest, component: str, *stages: str) -> tuple[Action, ...]:
    """The actions of some stages for a component, once their artifacts are in the cache.

    Raises:
        PlanError: the recipe has no such component.
        BuildFailedError: one of them could not be built.
    """
    plan = make_plan(request.options)
    actions = tuple(_find(plan, stage, component) for stage in stages)
    missing = [action.name for action in actions if not _status(plan, action).cached]
    if missing:
        _build(request, *missing)
    return actions


def artifact(request: BuildRequest, action: Action, destination: Path) -> Path:
    """An artifact of the cache as links in a folder."""
    plan = make_plan(request.options)
    digest = _status(plan, plan.graph[action.name]).digest
    assert digest is not None
    Store(cache_directory()).materialise(digest, destination, mode="input")
    return destination


def _status(plan: Plan, action: Action) -> Status:
    return Statuses(plan.graph, Store(cache_directory(), read_only=True), plan.outputs)[action]


def _find(plan: Plan, stage: str, component: str) -> Action:
    found = {action.component: action for action in plan.graph if action.stage.name == stage}
    named = {action.name.partition(":")[2].partition("@")[0]: action for action in found.values()}
    if component not in named:
        raise PlanError(
            f"component={component}: the recipe '{plan.graph.recipe}' does not build it{nearest(component, named)}\n"
            f"  it builds {', '.join(named)}"
        )
    return named[component]


def _build(request: BuildRequest, *tasks: str) -> None:
    """Run a build as the user would; what it prints goes to standard error, where it is in nobody's way."""
    words = [f"{name}={value}" for name, value in request.variables.items()]
    command = isolation.command("sdbuild.cli", *words, *tasks)
    status = subprocess.run(command, stdout=2, env=isolation.environment(), check=False).returncode
    if status:
        raise BuildFailedError(status if status > 0 else 1, ", ".join(tasks))
