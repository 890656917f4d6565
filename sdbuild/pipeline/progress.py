"""How far a drawing is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """Shows steps on a stream while it is open."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress: Any = None
        self._task: Any = None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Bar:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe must arrive there
            )
            self._progress.start()
            self._task = self._progress.add_task("loading", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, done: int, total: int) -> None:
        """Show that so many steps are done; off a terminal the last of all, and one now and then before it."""
        if self._progress is not None:
            self._progress.update(self._task, description="denoising", completed=done, total=total)
            return
        now = time.monotonic()
        if done == total or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            self.say(f"step {done} of {total} ({now - self._began:.0f} s)")

    def say(self, line: str) -> None:
        """Write a line; on a terminal it stays above the bar."""
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)
