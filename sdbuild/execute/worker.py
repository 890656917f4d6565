"""The process that runs one action: `worker.py JOB`, by way of `sdbuild.start`.

It reads the job, imports the stage and calls it. What the stage prints goes to the log, which is this process's
standard output and error; progress and the ending go as JSON lines through a pipe of their own. When the parent dies,
however it dies, this process and all that it started die too.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from sdbuild.errors import SdbuildError

_PR_SET_PDEATHSIG = 1
_SECONDS_BETWEEN_MESSAGES = 0.05
_LONGEST_MESSAGE = 20_000  # characters


class PipeProgress:
    """The progress callable that a stage gets; many threads may call it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._last = 0.0
        self._message = ""

    def __call__(self, fraction: float, message: str) -> None:
        """Tell how far the action is (0 to 1) and what it does; calls in close succession are thinned out."""
        now = time.monotonic()
        with self._lock:
            if now - self._last < _SECONDS_BETWEEN_MESSAGES and message == self._message and fraction < 1:
                return
            self._last, self._message = now, message
            self.send({"event": "progress", "fraction": float(fraction), "message": str(message)})

    def send(self, event: dict[str, Any]) -> None:
        """Write one event; a parent that no longer listens is about to end this process anyway."""
        if "message" in event:
            event = {**event, "message": event["message"][:_LONGEST_MESSAGE]}
        line = memoryview(json.dumps(event).encode() + b"\n")
        with self._lock, contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]


def main(job_path: str) -> int:
    """Run the job and return the exit status: 0, or 1 for an error that was reported."""
    job = json.loads(Path(job_path).read_bytes())
    _die_with_parent(job["parent"], job["alive"])
    os.set_inheritable(job["progress"], False)
    faulthandler.enable()
    os.environ.setdefault("OMP_NUM_THREADS", str(job["threads"]))
    progress = PipeProgress(job["progress"])
    try:
        module, _, function = job["entry"].partition(":")
        run = getattr(importlib.import_module(module), function)
        run({role: Path(path) for role, path in job["inputs"].items()}, job["params"], Path(job["out"]), progress)
    except SdbuildError as error:
        traceback.print_exc()
        progress.send({"event": "error", "message": str(error)})
        return 1
    except BaseException as error:
        traceback.print_exc()
        message = str(error).strip()
        name = type(error).__name__
        memory = isinstance(error, MemoryError) or "can't allocate memory" in message
        progress.send({"event": "crash", "message": f"{name}: {message}" if message else name, "memory": memory})
        return 1
    progress.send({"event": "done"})
    return 0


def _die_with_parent(parent: int, alive: int) -> None:
    """End this process group as soon as the parent is gone, even by SIGKILL."""
    os.set_inheritable(alive, False)
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    if sys.platform == "linux":
        # The watching thread needs the interpreter, which long native code can hold; the kernel does not.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _watch(alive: int) -> None:
    os.read(alive, 1)  # the parent never writes: this returns when its end is closed
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the log and the output are closed; taking the interpreter apart would only cost time
