"""A file that is written on a thread of its own, while the caller computes what comes next."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

PENDING = 4
"""Pieces that may wait to be written; more would only take memory."""


class WriteBehind:
    """Takes what is written in order and returns at once. The buffers must not change until they are on the file.

    An error of the file system is raised by the next call, at the latest by `close`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._pending: deque[Future[int]] = deque()

    def write(self, data: Buffer) -> int:
        """Append bytes.

        Returns:
            How many bytes `data` holds.
        """
        while len(self._pending) >= PENDING:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._file.write, data))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Wait until everything is written."""
        while self._pending:
            self._pending.popleft().result()
        self._file.flush()

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    def seek(self, offset: int) -> int:
        """Go to a position, after everything is written."""
        self.flush()
        return self._file.seek(offset)

    def close(self) -> None:
        """Wait until everything is written, and close the file."""
        try:
            self.flush()
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._file.close()
