"""Artifacts of tiny models, made by the stages themselves in this process."""

from __future__ import annotations

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
        self.told: list[tuple[float, str]] = []

    def __call__(self, fraction: float, message: str) -> None:
        assert 0 <= fraction <= 1
        assert message
        self.told.append((fraction, message))


def converted(checkpoint: Path, out: Path, **parameters: Any) -> Path:
    """Convert a component into a new directory and return it."""
    out.mkdir()
    convert.run({"checkpoint": checkpoint}, parameters, out, Recorder())
    return out


def top_level(artifact: Path) -> list[str]:
    """What an artifact holds, one level deep."""
    return sorted(path.name for path in artifact.iterdir())
