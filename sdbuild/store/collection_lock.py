"""Builds and collections of one store take turns: any number of builds at a time, or one collection.

A build finds artifacts at its start and reads them hours later, so nothing may be removed in between. The operating
system drops a lock when its holder ends, however it ends. Where a file system has no locks, a collection spares what is
young.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from sdbuild.store.layout import Layout

_POLL_SECONDS = 0.1
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextlib.contextmanager
def in_use(layout: Layout, waiting: Callable[[], None]) -> Iterator[None]:
    """Let no collection begin; `waiting` is called once if one is at work and has to end first."""
    with _locked(layout, fcntl.LOCK_SH, waiting):
        yield


@contextlib.contextmanager
def alone(layout: Layout, waiting: Callable[[], None]) -> Iterator[bool]:
    """Let no build begin, once those that run have ended; `waiting` is called once if there are any.

    Yields:
        whether that is so: not where the file system has no locks.
    """
    with _locked(layout, fcntl.LOCK_EX, waiting) as held:
        yield held


@contextlib.contextmanager
def _locked(layout: Layout, kind: int, waiting: Callable[[], None]) -> Iterator[bool]:
    layout.locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout.locks / "collection", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _acquire(descriptor, kind, waiting)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, kind: int, waiting: Callable[[], None]) -> bool:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            return True
        if not told:
            waiting()
            told = True
        time.sleep(_POLL_SECONDS)
