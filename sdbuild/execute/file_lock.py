"""Locks that save work: two processes that want the same action make it once.

The operating system drops a lock when its holder dies, so none is ever stale. Nothing depends on a lock: where a file
system has none, both processes do the work and store the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

_POLL_SECONDS = 0.1
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], None], check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock at `path`.

    Args:
        path: the lock file; its folder must exist. It is removed with the lock.
        waiting: told once who holds the lock, if somebody does.
        check: called while waiting; whatever it raises ends the wait.
    """
    descriptor: int | None = None
    announced = False
    while descriptor is None:
        descriptor = _try(path)
        if descriptor is None:
            if not announced:
                waiting(f"waits for {_holder(path)}")
                announced = True
            check()
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # before the lock goes: whoever opened this file sees that it is no longer the one here
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """Take the lock if it is free; the descriptor that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_current(descriptor, path):
            os.close(descriptor)
            return None
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return descriptor
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)
    return descriptor


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']}, which has been making it since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process, which is making it"
