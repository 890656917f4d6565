"""The prediction stage: what makes noise of a UNet's velocity, where the Swift package is to draw with it.

Input: ``index``, the checkpoint's JSON files. There are no parameters. The result is ``prediction.json`` with α and σ
of each training step; it is empty where the checkpoint predicts noise, and where the package could not draw with noise
either. An empty artifact is no input of what comes after, so that every other checkpoint's models keep their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.checkpoints.noise_schedule import velocity_tables
from sdbuild.documents import read_json
from sdbuild.prediction import write_tables
from sdbuild.stages import Stage
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """There is nothing to choose."""


STAGE = Stage(
    name="prediction",
    version=1,
    parameters=Parameters,
    title="what makes noise of the velocity that {} may predict",
    group="see whether noise must be computed from what UNets predict",
    reads="the checkpoint's JSON files",
    result="α and σ of each training step, where noise is to be computed from a velocity",
    follows=("source", "schedule"),
)

SCHEDULER = "scheduler/scheduler_config.json"


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Write the tables, or nothing."""
    path = inputs["index"] / SCHEDULER
    tables = velocity_tables(read_json(path)) if path.is_file() else None
    if tables is not None:
        write_tables(out, *tables)
    progress(1.0, "the UNet's output is left as it is" if tables is None else "noise is computed from the velocity")
