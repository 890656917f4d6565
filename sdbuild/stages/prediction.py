"""The prediction stage: what makes noise of a UNet's velocity, where the Swift package is to draw with it.

Input: ``index``, the checkpoint's JSON files. There are no parameters. The result is ``prediction.json`` with α and σ
of each training step; it is empty where the checkpoint predicts noise, and where the package could not draw with noise
either. An empty artifact is no input of what comes after, so that every other checkpoint's models keep their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.noise_schedule import velocity_tables
from sdbuild.documents import read_json
from sdbuild.prediction import write_tables
from sdbuild.stages import Stage

STAGE = Stage(name="prediction", version=1)

SCHEDULER = "scheduler/scheduler_config.json"


def run(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Callable[[float, str], None]
) -> None:
    """Write the tables, or nothing."""
    path = inputs["index"] / SCHEDULER
    tables = velocity_tables(read_json(path)) if path.is_file() else None
    if tables is not None:
        write_tables(out, *tables)
    progress(1.0, "the UNet's output is left as it is" if tables is None else "noise is computed from the velocity")
