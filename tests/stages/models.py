"""Artifacts of tiny models, made by the stages themselves in this process, or in one of their own as builds do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.stages import convert

UNET = {
    "component": "unet",
    "latent_height": 8,
    "latent_width": 8,
    "text_sequence_length": 77,
    "batch": 1,
    "controlnet_ready": False,
}
"""The interface of a small UNet."""

CONVERSION = {"precision": "float16", "deployment_target": "iOS16"}
UNET_CONVERSION = UNET | CONVERSION | {"attention_implementation": "SPLIT_EINSUM"}


class Recorder:
    """A progress callable that keeps what it was told."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, str]] = []

    def __call__(self, fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1
        assert message
        self.reports.append((fraction, message))


def converted(checkpoint: Path, out: Path, **parameters: Any) -> Path:
    """Convert a component into a new directory and return it."""
    out.mkdir()
    convert.run({"checkpoint": checkpoint}, parameters, out, Recorder())
    return out


def top_level(artifact: Path) -> list[str]:
    """What an artifact holds, one level deep."""
    return sorted(path.name for path in artifact.iterdir())


_WORKER = """
import json, sys
from importlib import import_module
from pathlib import Path
stage, inputs, parameters, out, packages = json.loads(sys.argv[1])
module, _, function = import_module(f"sdbuild.stages.{stage}").STAGE.entry.partition(":")
inputs = {role: Path(path) for role, path in inputs.items()}
getattr(import_module(module), function)(inputs, parameters, Path(out), lambda fraction, message: None)
print("imported:", *(name for name in packages if sys.modules.get(name)))
"""


def made_by_worker(
    stage: str, inputs: Mapping[str, Path], parameters: Mapping[str, Any], out: Path, packages: tuple[str, ...]
) -> list[str]:
    """Run a stage in a process of its own; returns which of some packages that process imported."""
    out.mkdir()
    roles = {role: str(path) for role, path in inputs.items()}
    job = json.dumps([stage, roles, parameters, str(out), packages])
    command = [sys.executable, "-W", "ignore", "-c", _WORKER, job]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    return told.removeprefix("imported:").split()


def contents(artifact: Path) -> dict[str, bytes]:
    """Every file of an artifact, by its path."""
    return {str(path.relative_to(artifact)): path.read_bytes() for path in artifact.rglob("*") if path.is_file()}


def palette(bits: int, group_size: int | None = None) -> dict[str, Any]:
    """The quantize stage's parameters for look-up tables."""
    return {"bits": bits, "method": "palette", "group_size": group_size}
