"""Running actions: one process each, in a memory budget, with progress and errors that people can use."""

from sdbuild.execute.action import DEFAULT_MEMORY, ActionSpec
from sdbuild.execute.errors import ActionFailed, ExecuteError, Interrupted
from sdbuild.execute.process import stop_all
from sdbuild.execute.report import LiveReporter, PlainReporter, Reporter, reporter_for
from sdbuild.execute.run import run_action

__all__ = [
    "DEFAULT_MEMORY",
    "ActionFailed",
    "ActionSpec",
    "ExecuteError",
    "Interrupted",
    "LiveReporter",
    "PlainReporter",
    "Reporter",
    "reporter_for",
    "run_action",
    "stop_all",
]
