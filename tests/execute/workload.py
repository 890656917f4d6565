"""Stages for tests: each does one thing that real stages do, well or badly."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.errors import SdbuildError

Progress = Callable[[float, str], None]


class WorkloadError(SdbuildError):
    """A mistake of the user's that the stage explains."""


def write(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    print("a line for the log")
    progress(0.5, "half way")
    (out / "model").mkdir()
    text = "".join(path.read_text() for role in sorted(inputs) for path in sorted(inputs[role].iterdir()))
    (out / "model" / "text").write_text(text + params.get("text", ""))
    if "count" in params:
        with Path(params["count"]).open("a") as file:
            file.write("ran\n")
    time.sleep(params.get("milliseconds", 0) / 1000)
    progress(1.0, "written")


def allocate(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    block = b"\1" * params["bytes"]
    progress(0.5, "holds it")
    time.sleep(0.1)
    (out / "size").write_text(str(len(block)))


def environment(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    names = ("OMP_NUM_THREADS", "PYTHONHASHSEED", "TMPDIR")
    (out / "environment").write_text("\n".join(os.environ[name] for name in names))
    (out / "modules").write_text("\n".join(sys.modules))


def refuse(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    progress(0.1, "reads the weights")
    (out / "half").write_text("made")
    raise WorkloadError("tensor conv_in.weight holds NaN\n  use another checkpoint")


def crash(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    progress(0.1, "divides")
    raise {"zero": ZeroDivisionError, "memory": MemoryError, "exit": SystemExit}[params["kind"]]("by nought")


def die(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    progress(0.7, "lowers the graph")
    os.kill(os.getpid(), params["signal"])


def leave(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    os._exit(0)


def tamper(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    path = (inputs["model"] / "text").resolve()
    path.chmod(0o644)
    path.write_text("spoilt")
    (out / "text").write_text("made from what was spoilt")


def linger(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(params["pids"]).write_text(f"{os.getpid()} {child.pid}")
    progress(0.1, "sleeps")
    time.sleep(60)
