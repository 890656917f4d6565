"""Who made a temporary file, and whether that process still lives.

A token names a process by its id, its start time, the boot of its machine, and the place that its id is valid in
(host and process namespace): a process id alone is reused, and means nothing in another container.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import secrets
import socket
import sys
import time
from pathlib import Path

_FOREIGN_GRACE_SECONDS = 2 * 24 * 3600.0
_LINUX = sys.platform.startswith("linux")
_counter = itertools.count()


def unique_name() -> str:
    """A file name that nobody else uses and that tells this process: ``<pid>.<start>.<boot>.<place>.<random>``."""
    return f"{_process_token(os.getpid())}.{next(_counter)}{secrets.token_hex(4)}"


def is_abandoned(name: str, path: Path) -> bool:
    """Whether the maker of a file named by `unique_name` is dead, so that the file may be removed.

    What another host or container made is abandoned only after two days without a change, since its processes
    cannot be seen from here. A name that has no such form is nobody's.
    """
    parts = name.split(".")
    if len(parts) < 5 or not parts[0].isdigit():
        return True
    pid, start, boot, place = int(parts[0]), parts[1], parts[2], parts[3]
    if place != _place():
        return _age(path) > _FOREIGN_GRACE_SECONDS
    return boot != _boot() or _start_time(pid) != start


@functools.lru_cache(maxsize=4)
def _process_token(pid: int) -> str:
    return f"{pid}.{_start_time(pid)}.{_boot()}.{_place()}"


def _start_time(pid: int) -> str | None:
    """A value that differs between two processes that had the same id; None when there is no such process."""
    if _LINUX:
        try:
            # The second field is the program's name in brackets and may itself hold brackets and spaces.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else fields[19]
    import psutil  # here, not above: only some systems need it, and it is slow to import

    try:
        return str(int(psutil.Process(pid).create_time() * 1000))
    except psutil.Error:
        return None


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    if _LINUX:
        identifier = Path("/proc/sys/kernel/random/boot_id").read_text()
    else:
        buffer, length = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(length), None, 0)
        identifier = buffer.value.decode()
    return hashlib.sha256(identifier.encode()).hexdigest()[:8]


@functools.lru_cache(maxsize=1)
def _place() -> str:
    namespace = Path("/proc/self/ns/pid").readlink() if _LINUX else ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
