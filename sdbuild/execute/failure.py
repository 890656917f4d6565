"""From the way a worker ended to a message that says what to do."""

from __future__ import annotations

import signal
from pathlib import Path

from sdbuild.errors import UNFORESEEN
from sdbuild.execute.errors import ActionFailed
from sdbuild.execute.process import Ending

_GB = 1_000_000_000
_MEMORY_HINT = (
    "Close other programs, run fewer actions at a time (a smaller -n, or SDBUILD_MEMORY_GB), "
    "or build where there is more memory."
)


def explain(action: str, ending: Ending, log: Path) -> ActionFailed:
    """The error for a worker that did not report that it was done."""
    kind = ending.event.get("event")
    message = str(ending.event.get("message", ""))
    if kind == "error":
        return ActionFailed(action, message, log=log, last=ending.last)
    if kind == "crash" and ending.event.get("memory"):
        return ActionFailed(action, f"{message}; {_memory(ending)}", log=log, last=ending.last, hint=_MEMORY_HINT)
    if kind == "crash":
        hint = "This was not foreseen: the log has the traceback. Please open an issue with the log."
        failed = ActionFailed(action, message, log=log, last=ending.last, hint=hint)
        failed.exit_status = UNFORESEEN
        return failed
    if ending.status == -signal.SIGKILL:
        reason = f"its process was killed, most likely for lack of memory; {_memory(ending)}"
        return ActionFailed(action, reason, log=log, last=ending.last, hint=_MEMORY_HINT)
    if ending.status < 0:
        reason = f"its process was ended by {_signal_name(-ending.status)}; {_memory(ending)}"
        hint = "The log ends with the stack at that moment, where the signal left time to write it."
        return ActionFailed(action, reason, log=log, last=ending.last, hint=hint)
    reason = f"its process ended with status {ending.status} before the stage was done"
    return ActionFailed(action, reason, log=log, last=ending.last, hint="The log holds what it printed.")


def _memory(ending: Ending) -> str:
    peak = max(ending.peak_rss, ending.peak_anonymous)
    return (
        f"it had reached {peak / _GB:.1f} GB ({ending.peak_anonymous / _GB:.1f} GB of it not backed by files), "
        f"{ending.available / _GB:.1f} GB were available at last"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
