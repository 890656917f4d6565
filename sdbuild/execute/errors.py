"""What a failed action tells people."""

from __future__ import annotations

from pathlib import Path

from sdbuild.errors import SdbuildError


class ExecuteError(SdbuildError):
    """An action could not be run to its end."""


class ActionFailed(ExecuteError):  # noqa: N818 (says what happened, as StopIteration does)
    """An action ended without a result.

    Attributes:
        action: the action's name, as ``convert:unet``.
        reason: what happened.
        log: the log file, which holds everything that the action printed.
        last: the last thing that the action said before.
        hint: what to do next.
    """

    def __init__(self, action: str, reason: str, *, log: Path, last: str = "", hint: str = "") -> None:
        self.action, self.reason, self.log, self.last, self.hint = action, reason, log, last, hint
        lines = [f"{action} failed: {reason}"]
        if last:
            lines.append(f"  last step: {last}")
        lines.append(f"  log: {log}")
        if hint:
            lines.append(f"  {hint}")
        super().__init__("\n".join(lines))


class Interrupted(ExecuteError):  # noqa: N818 (as KeyboardInterrupt)
    """The build was told to stop; nothing half-made is left."""

    exit_status = 130
