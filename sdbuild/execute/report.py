"""What people see while actions run: a live table on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from sdbuild.store import ActionResult

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_SECONDS_BETWEEN_LINES = 10.0
_GB = 1_000_000_000


class Reporter(Protocol):
    """Is told what happens to actions, by name; calls come from many threads."""

    def started(self, action: str) -> None:
        """The action's process is about to start."""

    def progress(self, action: str, fraction: float | None, message: str, memory: int) -> None:
        """News from a running action: how far it is (0 to 1, None when it has not said), what it does, bytes held."""

    def waiting(self, action: str, reason: str) -> None:
        """The action has to wait before it can start."""

    def finished(self, action: str, result: ActionResult) -> None:
        """The action's result is stored."""

    def failed(self, action: str, error: BaseException) -> None:
        """The action ended without a result."""


def reporter_for(stream: TextIO | None = None) -> Reporter:
    """The reporter that suits a stream (standard error unless given)."""
    stream = sys.stderr if stream is None else stream
    return LiveReporter(stream) if stream.isatty() else PlainReporter(stream)


class PlainReporter:
    """One line an event, and at most one progress line an action in ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def started(self, action: str) -> None:
        """Print that the action starts."""
        self._began[action] = self._last[action] = time.monotonic()
        self._print(f"{action}: started")

    def progress(self, action: str, fraction: float | None, message: str, memory: int) -> None:
        """Print how far the action is, now and then."""
        now = time.monotonic()
        if now - self._last.get(action, 0.0) < _SECONDS_BETWEEN_LINES:
            return
        self._last[action] = now
        percent = "" if fraction is None else f"{fraction:.0%} "
        self._print(f"{action}: {percent}{message} ({now - self._began.get(action, now):.0f} s, {memory / _GB:.1f} GB)")

    def waiting(self, action: str, reason: str) -> None:
        """Print why the action waits."""
        self._print(f"{action}: {reason}")

    def finished(self, action: str, result: ActionResult) -> None:
        """Print what the action cost."""
        self._print(f"{action}: {summary(result)}")

    def failed(self, action: str, error: BaseException) -> None:
        """Print that the action failed; the error itself is shown by whoever catches it."""
        self._print(f"{action}: failed")

    def _print(self, line: str) -> None:
        with self._lock:
            print(line, file=self._stream, flush=True)


@dataclass
class _Row:
    began: float = field(default_factory=time.monotonic)
    fraction: float | None = None
    message: str = ""
    memory: int = 0


class LiveReporter:
    """A table of the running actions, redrawn in place; finished ones scroll away above it as plain lines."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # slow to import, and only a terminal needs it

        self._lock = threading.RLock()
        self._rows: dict[str, _Row] = {}
        self._console = Console(file=stream)
        self._live: Live | None = None

    def started(self, action: str) -> None:
        """Add the action to the table."""
        with self._lock:
            self._rows[action] = _Row()
            self._show()

    def progress(self, action: str, fraction: float | None, message: str, memory: int) -> None:
        """Change the action's row."""
        with self._lock:
            row = self._rows.setdefault(action, _Row())
            row.fraction, row.message, row.memory = fraction, message, memory

    def waiting(self, action: str, reason: str) -> None:
        """Show the action with the reason why it waits."""
        with self._lock:
            self._rows[action] = _Row(message=reason)
            self._show()

    def finished(self, action: str, result: ActionResult) -> None:
        """Take the action off the table and print what it cost."""
        self._close(action, f"[green]✓[/] {action}  [dim]{summary(result)}[/]")

    def failed(self, action: str, error: BaseException) -> None:
        """Take the action off the table; the error itself is shown by whoever catches it."""
        self._close(action, f"[red]✗[/] {action}")

    def _close(self, action: str, line: str) -> None:
        with self._lock:
            self._rows.pop(action, None)
            if not self._rows and self._live is not None:
                self._live.stop()
                self._live = None
            self._console.print(line, highlight=False)

    def _show(self) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._table,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe must arrive there
                redirect_stderr=True,
            )
            self._live.start(refresh=True)

    def _table(self) -> RenderableType:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        with self._lock:
            for action, row in self._rows.items():
                table.add_row(
                    Spinner("dots"),
                    Text(action, style="bold"),
                    Text("" if row.fraction is None else f"{row.fraction:.0%}"),
                    Text(f"{now - row.began:.0f} s"),
                    Text(f"{row.memory / _GB:.1f} GB" if row.memory else ""),
                    Text(row.message, style="dim", no_wrap=True, overflow="ellipsis"),
                )
        return table


def summary(result: ActionResult) -> str:
    """What a run cost, in words: ``12.3 s, 1.4 GB``."""
    return f"{result.seconds:.1f} s, {result.memory / _GB:.1f} GB"
