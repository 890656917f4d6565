"""The schedule stage: a checkpoint's JSON files with the schedule that the recipe states.

Input: ``source``, the checkpoint's index or its scheduler alone. The result is the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.checkpoints.files import files_in, write_config
from sdbuild.stages import Stage
from sdbuild.stages.files import place
from sdbuild.stages.parameters import parameters, reads


@parameters
class Parameters:
    """What to state, and where.

    Attributes:
        component: `index` or `scheduler`.
        settings: a JSON text: what takes the place of settings in `scheduler_config.json`.
    """

    component: str
    settings: str


STAGE = Stage(
    name="schedule",
    version=1,
    parameters=Parameters,
    title="the checkpoint's {} with the recipe's schedule",
    group="state the recipe's schedule for the checkpoint",
    reads="the checkpoint's JSON files",
    result="the same files with the schedule that the recipe states",
    follows=("source",),
)

_CONFIG = "scheduler_config.json"
_INDEX = "model_index.json"
_CLASS = "_class_name"


@reads(Parameters)
def run(inputs: Mapping[str, Path], params: Parameters, out: Path, progress: Callable[[float, str], None]) -> None:
    """Lay the stated settings over the checkpoint's own."""
    stated = json.loads(params.settings)
    config = f"scheduler/{_CONFIG}" if params.component == "index" else _CONFIG
    files = files_in(inputs["source"])
    for name, path in files.items():
        if name == _INDEX and _CLASS in stated:
            write_config(out / name, json.loads(path.read_bytes()) | {"scheduler": ["diffusers", stated[_CLASS]]})
        elif name != config:
            place(path, out / name)
    own = json.loads(files[config].read_bytes()) if config in files else {}
    write_config(out / config, own | stated)
    progress(1.0, f"{len(stated)} settings")
