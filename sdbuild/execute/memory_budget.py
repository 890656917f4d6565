"""A memory budget: heavy actions run at the same time only while what they are expected to need fits.

A running action leaves a small file that says how much it reserved and who it is. Threads and processes that share a
store see each other's, and a dead process's file counts for nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.execute.errors import ExecuteError
from sdbuild.execute.file_lock import locked
from sdbuild.store.owner import is_abandoned, unique_name

BUDGET_VARIABLE = "SDBUILD_MEMORY_GB"
_SHARE_OF_AVAILABLE = 0.8
_POLL_SECONDS = 0.25
_MACOS = sys.platform.startswith("darwin")
_GB = 1_000_000_000


class Reservation:
    """Memory set aside for one action, until it is released."""

    def __init__(self, path: Path, amount: int) -> None:
        self._path = path
        self._amount = amount

    def running_as(self, worker: int) -> None:
        """Name the process that uses the memory, so that what it already holds is not counted twice."""
        temporary = self._path.with_name(f"{self._path.name}.new")
        temporary.write_text(json.dumps({"amount": self._amount, "worker": worker}))
        temporary.replace(self._path)


@contextlib.contextmanager
def reserved(
    folder: Path, amount: int, waiting: Callable[[str], None], check: Callable[[], None]
) -> Iterator[Reservation]:
    """Wait until `amount` bytes fit beside what others reserved, and hold them. An action alone always runs.

    Args:
        folder: where the reservations of one store lie.
        amount: bytes.
        waiting: told once why the action waits.
        check: called while waiting; whatever it raises ends the wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{unique_name()}.memory"
    announced = False
    while True:
        with locked(folder / "memory.lock", lambda _: None, check):
            others = _others(folder)
            budget = memory_budget(sum(usage_of(worker).anonymous for _, worker in others if worker))
            in_use = sum(amount_held for amount_held, _ in others)
            if not others or in_use + amount <= budget:
                path.write_text(json.dumps({"amount": amount, "worker": 0}))
                break
        if not announced:
            waiting(
                f"waits for memory: needs about {amount / _GB:.1f} GB, {in_use / _GB:.1f} of "
                f"{budget / _GB:.1f} GB are in use by other actions"
            )
            announced = True
        check()
        time.sleep(_POLL_SECONDS)
    try:
        yield Reservation(path, amount)
    finally:
        path.unlink(missing_ok=True)


def memory_budget(in_use: int = 0) -> int:
    """Bytes that all running actions together may need: ``$SDBUILD_MEMORY_GB``, else most of what is available.

    Args:
        in_use: bytes that running actions hold already, and which are therefore missing from what is available.
    """
    text = os.environ.get(BUDGET_VARIABLE)
    if not text:
        return int((available_memory() + in_use) * _SHARE_OF_AVAILABLE)
    try:
        budget = float(text)
    except ValueError:
        budget = 0.0
    if not 0 < budget < 1e6:
        raise ExecuteError(f"{BUDGET_VARIABLE}={text!r} is not a number of gigabytes; set it to one, as 16")
    return int(budget * _GB)


def available_memory() -> int:
    """Bytes that can be had without swapping, the limit of a container included."""
    import psutil  # only the process that runs actions needs it

    available = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # "max", or no such file
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        statistics = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        available = min(available, limit - used + int(statistics.get("inactive_file", 0)))
    return max(available, 0)


@dataclass(frozen=True)
class Usage:
    """What a process holds: bytes that could not be given back to files, and the highest resident memory so far."""

    anonymous: int
    peak_rss: int


def usage_of(process: int) -> Usage:
    """A process's memory now; zeros when it is gone, and for what the system does not tell."""
    if _MACOS:
        return Usage(_physical_footprint(process), 0)
    values = {b"RssAnon": 0, b"VmHWM": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_bytes().splitlines():
            name, _, value = line.partition(b":")
            if name in values:
                values[name] = int(value.split()[0]) * 1024
    return Usage(values[b"RssAnon"], values[b"VmHWM"])


def _physical_footprint(process: int) -> int:
    """What macOS charges a process for: dirty and compressed memory (libproc.h, rusage_info_v0)."""
    usage = (ctypes.c_uint64 * 12)()  # a 16-byte identifier, then ten counters
    if ctypes.CDLL(None).proc_pid_rusage(process, 0, ctypes.byref(usage)) != 0:
        return 0
    return int(usage[2 + 7])


def _others(folder: Path) -> list[tuple[int, int]]:
    """(bytes, worker) of every live reservation; those of dead processes are removed."""
    found = []
    for path in folder.glob("*.memory*"):
        if is_abandoned(path.name, path):
            path.unlink(missing_ok=True)
        if path.suffix != ".memory":
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_bytes())
            found.append((int(values["amount"]), int(values["worker"])))
    return found
