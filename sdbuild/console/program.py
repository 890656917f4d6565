"""The `sdbuild` command: doit with our tasks and commands, for any working directory."""

import runpy
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from doit.cmd_base import NamespaceTaskLoader
from doit.cmd_help import Help
from doit.doit_cmd import DoitMain

import sdbuild
from sdbuild.commands import COMMAND_NAMES
from sdbuild.console.command import check_repeated, command_line_variables
from sdbuild.console.endings import MISTAKE, ending_of
from sdbuild.console.many import command_lines, run_each
from sdbuild.errors import SdbuildError
from sdbuild.plan.action import Action
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from sdbuild.plan.session import Session
from sdbuild.plan.status import Status
from sdbuild.store import ActionResult, Store


class LocalExecutor:
    """Runs actions on this machine; the execute room and its reporter are loaded with the first one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reporter: Any = None

    def run(self, action: Action, status: Status, memory: int | None) -> ActionResult:
        """Run an action in a process of its own, and record its result in the store."""
        from sdbuild.execute import DEFAULT_MEMORY, ActionSpec, run_action

        assert status.document is not None
        assert status.key is not None
        spec = ActionSpec(
            name=action.name,
            stage=action.stage.name,
            entry=action.stage.entry,
            params=action.parameters,
            inputs=status.document["inputs"],
            document=status.document,
            key=status.key,
            memory=DEFAULT_MEMORY if memory is None else memory,
        )
        return run_action(self._store, spec, reporter=self._shown())

    def read(self, action: Action) -> ActionResult:
        """Read a local checkpoint's files where they are, showing progress."""
        reporter = self._shown()
        reporter.started(action.name)
        began = time.monotonic()

        def progress(fraction: float, message: str) -> None:
            reporter.progress(action.name, fraction, message, 0)

        try:
            tree = self._store.reference_tree(action.files, progress=progress)
        except SdbuildError as error:
            reporter.failed(action.name, error)
            raise
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        result = ActionResult(tree.digest, round(time.monotonic() - began, 3), 0, 0, "", finished)
        reporter.finished(action.name, result)
        return result

    def _shown(self) -> Any:
        if self._reporter is None:
            from sdbuild.execute import reporter_for

            self._reporter = reporter_for()
        return self._reporter


class Loader(NamespaceTaskLoader):  # type: ignore[misc]
    """Takes the tasks from `sdbuild/dodo.py` wherever the command is run."""

    def setup(self, opt_values: Any) -> None:
        """Run the dodo file, which reads the command line."""
        self.namespace = runpy.run_module("sdbuild.dodo")


class Main(DoitMain):  # type: ignore[misc]
    """doit's program under our name, with our commands."""

    BIN_NAME = "sdbuild"
    DOIT_CMDS = (Help,)

    def __init__(self) -> None:
        # A user's own pyproject.toml may configure doit for other things: it is not read.
        plugins = {
            "BACKEND": {"sdbuild": "sdbuild.console.ignored:Ignored"},
            # By place: a command is imported when it is asked for.
            "COMMAND": {name: f"sdbuild.commands.{name}:Command" for name in COMMAND_NAMES},
        }
        super().__init__(task_loader=Loader(), config_filenames=(), extra_config=plugins)

    @staticmethod
    def print_version() -> None:
        """Print our version."""
        print(f"sdbuild {sdbuild.__version__}")


def open_session() -> Session:
    """The session that the command line's variables ask for.

    Raises:
        SdbuildError: of the room that found the mistake.
    """
    plan = make_plan(parse_options(command_line_variables()))
    store = Store(cache_directory())
    return Session(plan, store, LocalExecutor(store))


def report(error: SdbuildError) -> int:
    """Say what is wrong on standard error; returns the exit status."""
    print(error, file=sys.stderr)
    return error.exit_status


def run(arguments: Sequence[str]) -> int:
    """Run a command line, or one for each recipe that it names; whatever a single one does not foresee is raised."""
    words = [word for word in arguments if word]
    check_repeated(words)
    lines = command_lines(words)
    if len(lines) > 1:
        return run_each(lines, lambda line: ending_of(lambda: _run_one(line)))
    return _run_one(lines[0])


def _run_one(words: Sequence[str]) -> int:
    status = int(Main().run(list(words)) or 0)
    # doit's 3: it refused the command line before any command had it.
    return MISTAKE if status == 3 else status
