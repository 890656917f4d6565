"""How the program ends: one place that turns whatever stopped it into words and an exit status.

What was foreseen has its own message, with what to do. A refusal of the operating system has the system's words and the
file. All else is our mistake: it goes into a report file, and the user is told where that is and asked for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import sdbuild
from sdbuild.errors import UNFORESEEN, SdbuildError
from sdbuild.plan.cache import cache_directory

DONE = 0
FAILED = 1
MISTAKE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

STATUSES = {
    DONE: "done",
    FAILED: "a build, a check or the machine failed; what to do is said",
    MISTAKE: "a mistake in a recipe, a target, a lock, a checkpoint or on the command line, found before any work",
    UNFORESEEN: "a mistake of sdbuild's own; a report file is named (`EX_SOFTWARE` of sysexits.h)",
    INTERRUPTED: "interrupted from the keyboard (128 + SIGINT)",
    BROKEN_PIPE: "the reader of the output has gone, as with `| head` (128 + SIGPIPE)",
}
"""Every exit status and what it means. A process that a signal ends has 128 + the signal's number, as in any shell."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = {
    errno.EIO: "a disk or its cable may be failing",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EACCES: "check who may read and write it",
    errno.EPERM: "check who may read and write it",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.EMFILE: "raise the limit with `ulimit -n`, or run fewer actions at a time with -n",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "one of the folders of its path is a file",
    errno.ELOOP: "its links run in a circle",
    errno.ESTALE: "the network disk has lost it; run again",
}


def ending_of(work: Callable[[], int]) -> int:
    """Do some work and return the exit status, whatever happens."""
    try:
        status = work()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk can be told; at exit it is too late
    except BaseException as error:
        return ended_by(error)
    return status


def ended_by(error: BaseException) -> int:
    """Say what ended the program, on standard error, and return the exit status."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else (FAILED if error.code else DONE)
    if isinstance(error, KeyboardInterrupt):
        if "sdbuild.execute" in sys.modules:
            sys.modules["sdbuild.execute"].stop_all()
        _say("interrupted; what was finished is kept, and the next run goes on from there")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _write_nowhere()
        return BROKEN_PIPE
    status, message = described(error)
    if _writes_to_output(error):
        _write_nowhere()
    _say(message)
    return status


def described(error: BaseException) -> tuple[int, str]:
    """The exit status and the words for a failure."""
    if isinstance(error, SdbuildError):
        return error.exit_status, str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return FAILED, _refusal(error)
    if isinstance(error, MemoryError):
        return FAILED, "there is not enough memory; close other programs, or build where there is more"
    return UNFORESEEN, _unforeseen(error)


def _refusal(error: OSError) -> str:
    """What the operating system refused."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = f"{' → '.join(names)}: " if names else ""
    if error.errno in _FULL:
        what = "the disk is full" if error.errno == errno.ENOSPC else "the quota of this disk is used up"
        return (
            f"{where}{what}. Free space there (the cache is {cache_directory()}; `sdbuild cache` shows what it holds), "
            "or set SDBUILD_CACHE to a folder on another disk. What was finished is kept."
        )
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {advice}" if advice else "")


def _unforeseen(error: BaseException) -> str:
    summary = traceback.format_exception_only(error)[-1].strip()[:500]
    report = _write_report(error)
    where = f"\n  report: {report}" if report is not None else ""
    return (
        f"sdbuild has met something that was not foreseen: {summary}{where}\n"
        "  Please open an issue with the report: it holds the command line and where in the program this was, and "
        "nothing of your files or your environment. What was finished is kept; the next run goes on from there."
    )


def _write_report(error: BaseException) -> Path | None:
    """Write the report beside the cache's logs, else among temporary files; None where neither can be written."""
    now = datetime.now(UTC)
    lines = [
        f"sdbuild {sdbuild.__version__}, {platform.python_implementation()} {platform.python_version()}, "
        f"{platform.platform()}, {now.isoformat(timespec='seconds')}",
        f"command line: {sys.argv[1:]!r}",
        "",
        *traceback.format_exception(error),
    ]
    name = f"report-{now.strftime('%Y%m%dT%H%M%S.%f')}.txt"
    folders: tuple[Callable[[], Path], ...] = (lambda: cache_directory() / "reports", _temporary)
    for folder in folders:
        with contextlib.suppress(OSError, SdbuildError, RuntimeError):
            path = folder() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
            return path
    return None


def _writes_to_output(error: BaseException) -> bool:
    """Whether it was standard output that could not be written, and would fail again when Python ends."""
    return isinstance(error, OSError) and error.filename is None and error.errno in (*_FULL, errno.EIO, errno.EBADF)


def _write_nowhere() -> None:
    """Let what is still to be written to standard output go nowhere, also what Python writes at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def _temporary() -> Path:
    return Path(tempfile.gettempdir())
