"""Start a worker, watch it, and tell how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdbuild import isolation
from sdbuild.execute.errors import Interrupted
from sdbuild.execute.memory_budget import available_memory, usage_of

# By its path: with -m, the worker would first import this package, which it does not need.
_WORKER = Path(__file__).with_name("worker.py")
_SAMPLE_SECONDS = 0.02
_SECONDS_TO_END = 2.0
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere

_stop = threading.Event()


def stop_all() -> None:
    """End every running action of this process, and let none start; for an interrupt under threads."""
    _stop.set()


def check_stopped() -> None:
    """Raise `Interrupted` after `stop_all`."""
    if _stop.is_set():
        raise Interrupted("the build was interrupted; run it again to go on from the last finished action")


@dataclass(frozen=True)
class Job:
    """What a worker is to do, in paths."""

    entry: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    out: Path
    log: Path
    folder: Path


@dataclass
class Ending:
    """How a worker ended.

    Attributes:
        status: exit status, or minus the number of the signal that ended it.
        event: the last thing it reported about its end: ``{"event": "done" | "error" | "crash", …}``, or empty.
        last: its last progress message.
        peak_rss: bytes, from the kernel's account of the process.
        peak_anonymous: bytes, sampled; a peak of less than 20 ms may be missed.
        available: bytes that were available on the machine at the last sample before the end.
    """

    status: int = 0
    event: Mapping[str, Any] = field(default_factory=dict)
    last: str = ""
    peak_rss: int = 0
    peak_anonymous: int = 0
    available: int = 0


def run_worker(
    job: Job,
    started: Callable[[int], None],
    progress: Callable[[float | None, str, int], None],
) -> Ending:
    """Run one job in a process of its own and wait for its end.

    Args:
        job: what to do.
        started: called with the worker's process id.
        progress: called with (fraction, message, resident bytes) on news, and now and then without.

    Raises:
        Interrupted, KeyboardInterrupt: the worker and all that it started have been ended.
    """
    progress_read, progress_write = os.pipe()
    alive_read, alive_write = os.pipe()
    try:
        description = job.folder / "job.json"
        description.write_text(json.dumps(_describe(job, progress_write, alive_read)))
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                isolation.command(str(_WORKER), str(description)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(progress_write, alive_read),
                start_new_session=True,
                env=_environment(job.folder),
            )
        os.close(progress_write)
        progress_write = -1
        try:
            started(process.pid)
            return _watch(process, progress_read, progress)
        finally:
            _end(process)
    finally:
        for descriptor in (progress_read, progress_write, alive_read, alive_write):
            if descriptor >= 0:
                os.close(descriptor)


def _describe(job: Job, progress: int, alive: int) -> dict[str, Any]:
    return {
        "entry": job.entry,
        "params": dict(job.params),
        "inputs": {role: str(path) for role, path in job.inputs.items()},
        "out": str(job.out),
        "parent": os.getpid(),
        "progress": progress,
        "alive": alive,
        "threads": _usable_processors(),
    }


def _environment(folder: Path) -> dict[str, str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return isolation.environment(
        PYTHONHASHSEED="0",  # the order of a set must not shape an artifact
        PYTHONUNBUFFERED="1",  # what was printed before a kill is in the log
        TMPDIR=str(temporary),  # removed with the rest, whatever happens to the worker
    )


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _watch(process: subprocess.Popen[bytes], pipe: int, progress: Callable[[float | None, str, int], None]) -> Ending:
    ending = Ending(available=available_memory())
    fraction: float | None = None
    buffer = b""
    last_news = last_available = time.monotonic()
    os.set_blocking(pipe, False)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        running = True
        while running:
            selector.select(_SAMPLE_SECONDS)
            check_stopped()
            usage = usage_of(process.pid)
            ending.peak_anonymous = max(ending.peak_anonymous, usage.anonymous)
            ending.peak_rss = max(ending.peak_rss, usage.peak_rss)
            running = not _reap(process, ending)
            buffer, events = _events(pipe, buffer, selector)
            now = time.monotonic()
            for event in events:
                if event.get("event") == "progress":
                    fraction, ending.last = event.get("fraction"), str(event.get("message", ""))
                else:
                    ending.event = event
            if events or now - last_news > 1.0:
                last_news = now
                progress(fraction, ending.last, usage.anonymous)
            if running and now - last_available > 0.25:
                last_available = now
                ending.available = available_memory()
    return ending


def _events(pipe: int, buffer: bytes, selector: selectors.BaseSelector) -> tuple[bytes, list[dict[str, Any]]]:
    """Everything that the pipe holds now, as events; what is left of an unfinished line."""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(pipe, 65536):
            buffer += chunk
        if selector.get_map():
            selector.unregister(pipe)  # the worker's end is closed; it would be reported as readable for ever
    *lines, rest = buffer.split(b"\n")
    return rest, [event for line in lines if (event := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    """An event; None for anything else that a stage managed to write into the pipe."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _reap(process: subprocess.Popen[bytes], ending: Ending) -> bool:
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return False
    ending.status = process.returncode = os.waitstatus_to_exitcode(status)
    # A child that was started without a copy of its parent's memory inherits the parent's peak in this account.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if usage.ru_maxrss > inherited or ending.peak_rss == 0:
        ending.peak_rss = usage.ru_maxrss * _RSS_UNIT
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the worker, if it runs, and whatever it started and left behind."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
