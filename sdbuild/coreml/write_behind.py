"""A file that is written on a thread of its own, while the caller computes what comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

WAITING = 16 << 20
"""Bytes that may wait to be written; more would only take memory."""


class WriteBehind:
    """Takes what is written in order and returns at once. The buffers must not change until they are on the file.

    An error of the file system is raised by a later call, at the latest by `close`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._pending: deque[tuple[Future[Any], int]] = deque()
        self._waiting = 0

    def write(self, data: Buffer) -> int:
        """Append bytes.

        Returns:
            How many bytes `data` holds.
        """
        size = memoryview(data).nbytes
        self._wait(WAITING - size)
        self._pending.append((self._thread.submit(self._file.write, data), size))
        self._waiting += size
        return size

    def afterwards(self, action: Callable[[], object]) -> None:
        """Do something, on the thread that writes, when all that was given so far is written."""
        self._pending.append((self._thread.submit(action), 0))

    def flush(self) -> None:
        """Wait until everything is written."""
        self._wait(-1)
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

    def _wait(self, most: int) -> None:
        while self._pending and self._waiting > most:
            future, size = self._pending.popleft()
            self._waiting -= size
            future.result()
