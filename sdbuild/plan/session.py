"""One build: doit walks the tasks, the session says what is cached, runs the rest and remembers what happened."""

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sdbuild.bundle.layout import BUILD_HOST
from sdbuild.errors import SdbuildError
from sdbuild.plan.action import Action, closure
from sdbuild.plan.costs import Costs
from sdbuild.plan.errors import PlanError
from sdbuild.plan.options import DEFAULT_OUT
from sdbuild.plan.places import check_apart, check_place
from sdbuild.plan.planner import Plan
from sdbuild.plan.preflight import Preflight
from sdbuild.plan.reasons import AlwaysAsked, Reason
from sdbuild.plan.space import check_space
from sdbuild.plan.status import Status, Statuses
from sdbuild.store import ActionResult, Store


class Executor(Protocol):
    """What does the work that a session decides on; `sdbuild.console.program` puts the execute room here."""

    def run(self, action: Action, status: Status, memory: int | None) -> ActionResult:
        """Run an action whose inputs are all known in a process of its own, and record its result in the store.

        Args:
            action: which.
            status: its key and key document.
            memory: bytes that it is expected to need; None where that is not known.
        """

    def read(self, action: Action) -> ActionResult:
        """Read a local checkpoint's files where they are, so that their content is known."""


@dataclass(frozen=True)
class Outcome:
    """What became of one action in this build.

    Attributes:
        action: which.
        ran: whether any work was done; False when the cache answered.
        reasons: why it ran.
        result: what it cost, then or now; None for a local checkpoint's files that were known.
        failure: the message, when it failed.
    """

    action: Action
    ran: bool
    reasons: tuple[Reason, ...] = ()
    result: ActionResult | None = None
    failure: str | None = None


class Session:
    """A build in progress.

    Attributes:
        plan: what was asked for.
        store: the cache.
        statuses: what the cache says.
        outcomes: what has happened, by task name, in order.
        exit_status: the status that the program should end with, as far as actions decide it.
        always: whether to run what is asked for even when the cache has it (`doit --always-execute`).
        on_collection: called if a collection of the cache has to end before the first action.
    """

    def __init__(self, plan: Plan, store: Store, executor: Executor) -> None:
        self.plan = plan
        self.store = store
        self.statuses = Statuses(plan.graph, store, plan.outputs)
        self.outcomes: dict[str, Outcome] = {}
        self.exit_status = 0
        self.always = False
        self.on_collection: Callable[[], None] = lambda: None
        self._executor = executor
        self._lock = threading.Lock()
        self._turn = ExitStack()
        self._begun = False
        self._preflight = Preflight(plan, self.statuses, store)

    def check_recipe(self) -> None:
        """Check the recipe against what is known of its checkpoint, and the places of its bundles, before any work.

        Raises:
            RecipeError: a rule is broken.
            PlanError: something that is not sdbuild's stands where a bundle is to be.
        """
        self._preflight.before_the_build()
        self.check_places()

    def check_space(self, tasks: Iterable[str]) -> None:
        """Refuse a build that does not fit the disk; raises `SpaceError`.

        Args:
            tasks: what is asked for, by name; a group of tasks stands for all of its members.
        """
        asked = [action for action in self.plan.graph if {action.name, action.name.partition(":")[0]} & set(tasks)]
        wanted = {each for action in asked for each in (*closure(action), action)}
        to_run = [action for action in self.plan.graph if action in wanted and self.statuses[action].digest is None]
        check_space([action for action in to_run if not action.files], self._costs(), self.store.root)

    def check_places(self) -> None:
        """Refuse to work where something would be lost; raises `PlanError`."""
        read = (file for action in self.plan.graph for file in action.files.values())
        check_apart(self.plan.outputs, self.store.root, read)
        for name, output in self.plan.outputs.items():
            check_place(output, self._made(self.plan.graph[name]))

    def end(self) -> None:
        """The build is over, however it ended."""
        self._turn.close()

    @property
    def warnings(self) -> list[str]:
        """What the sources hold that is left out and might matter."""
        return self._preflight.accounts.warnings()

    def is_current(self, action: Action) -> bool:
        """Whether the cache, and for a bundle its place too, holds the result; asked when the inputs are done."""
        self._begin()
        status = self.statuses[action]
        if status.cached:
            self._remember(action, status)
            self._heal_build_host(action)
            self.outcomes.setdefault(action.name, Outcome(action, ran=False, result=status.result))
        return status.cached

    def run(self, action: Action) -> str | None:
        """Make an action's artifact, and put a bundle at its place.

        Returns:
            None, or why it failed, for people.
        """
        self._begin()
        if (refused := self.outcomes.get(action.name)) is not None and refused.failure is not None:
            return refused.failure
        status = self.statuses[action]
        if self.always and status.digest is not None:
            self.forget([action])
            status = replace(self.statuses[action], reasons=(AlwaysAsked(),))
        try:
            if action.stage.name != "source":
                with self._lock:
                    self._preflight.with_fetched_files()
            result = self._make(action, status)
        except SdbuildError as error:
            self.exit_status = max(self.exit_status, error.exit_status)
            self.outcomes[action.name] = Outcome(action, True, status.reasons, failure=str(error))
            return str(error)
        self.outcomes[action.name] = Outcome(action, True, status.reasons, result)
        return None

    def refuse(self, action: Action, exit_status: int, message: str) -> str:
        """Note that an action failed, with the status that the program should end with; returns the message."""
        self.exit_status = max(self.exit_status, exit_status)
        self.outcomes[action.name] = Outcome(action, True, failure=message)
        return message

    def clean(self, action: Action) -> None:
        """Take a bundle away from its place, and folders above it that are then empty; the cache keeps everything."""
        output = self.statuses.output(action)
        if output is None or not output.is_dir():
            return
        check_place(output, self._made(action))
        self.store.discard(output)
        _build_host(output).unlink(missing_ok=True)
        out = self.plan.options.out
        # A folder that somebody named with `out=` is theirs.
        for folder in (output.parent, *([out] if out == DEFAULT_OUT.absolute() else [])):
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def forget(self, actions: Iterable[Action]) -> list[Action]:
        """Drop results from the cache, so that the actions run next time; returns those that had one."""
        # All keys first: a key is known only while the results of the inputs are.
        keys = {action: self.statuses[action].key for action in actions}
        forgotten = [action for action, key in keys.items() if key is not None and self.store.recorded(key)]
        for action in forgotten:
            self.store.forget(str(keys[action]))
        for action in self.plan.graph:
            self.statuses.look_again(action)
        return forgotten

    def log_file(self, result: ActionResult) -> Path:
        """The log of the run that made a result."""
        return self.store.root / result.log

    @property
    def outputs(self) -> dict[str, Path]:
        """Where the bundles and the contact sheet are that now stand at their places, by task."""
        built = {name for name, outcome in self.outcomes.items() if outcome.failure is None}
        return {name: path for name, path in self.plan.outputs.items() if name in built}

    def _begin(self) -> None:
        """From the first action until `end` nothing is removed from the cache."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._turn.enter_context(self.store.in_use(self.on_collection))
                self.statuses.look_at_everything_again()

    def _make(self, action: Action, status: Status) -> ActionResult:
        if action.files:
            result = self._executor.read(action)
            self.statuses.has_read(action, result.tree)
            return result
        if status.key is None:
            missing = {p.name for p in action.inputs.values() if self.statuses[p].digest is None}
            raise PlanError(f"{action.name} needs {', '.join(sorted(missing))} first; run it without --single")
        result = status.result or self._executor.run(action, status, self._costs()[action].memory)
        output = self.statuses.output(action)
        if output is not None:
            check_place(output, self._made(action))
            self.store.materialise(result.tree, output, mode="output")
            if action.stage.name == "bundle":
                self._write_build_host(action, output)
        self._remember(action, status)
        return result

    def _costs(self) -> Costs:
        """What actions are expected to take, by what is known by now."""
        return Costs(self.store, self.statuses, self.plan.loaded.recipe, self._preflight.facts)

    def _made(self, action: Action) -> frozenset[str]:
        """The files that this cache put at a bundle's place the last time, by their relative paths."""
        output = self.statuses.output(action)
        if output is None or not _build_host(output).is_file():
            return frozenset()  # nothing says that it was this place
        key = self.store.slot_key(self.statuses.slot(action))
        result = self.store.recorded(key) if key is not None else None
        tree = self.store.load_tree(result.tree) if result is not None else None
        return frozenset(entry.path for entry in tree.entries) if tree is not None else frozenset()

    def _write_build_host(self, bundle: Action, output: Path) -> None:
        """Note beside a bundle where and when it was made, and what that cost; the bundle itself tells none of it."""
        from sdbuild.bundle.document import bundle_digest
        from sdbuild.bundle.host import write_build_host

        results = {action.name: self.statuses[action].result for action in (*closure(bundle), bundle)}
        costs = {name: vars(result) for name, result in results.items() if result is not None}
        write_build_host(_build_host(output), bundle_digest(output), costs)

    def _heal_build_host(self, action: Action) -> None:
        """Write the note beside a bundle again, where a kill came between the two, or somebody removed it."""
        output = self.statuses.output(action)
        if output is None or action.stage.name != "bundle":
            return
        from sdbuild.bundle.document import bundle_digest
        from sdbuild.bundle.host import is_about

        if not is_about(_build_host(output), bundle_digest(output)):
            self._write_build_host(action, output)

    def _remember(self, action: Action, status: Status) -> None:
        if status.key is not None:
            self.store.slot_write(self.statuses.slot(action), status.key)


def _build_host(output: Path) -> Path:
    return output.with_name(f"{output.name}.{BUILD_HOST}")


def doc_of(action: Action) -> str:
    """One line about a task for `doit list`."""
    what = action.stage.title.format(action.component)
    return what if "@" not in action.name else f"{what}, for {', '.join(action.targets)}"
