"""Diffusers' own pipelines over the same checkpoints, and how alike two pictures are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdbuild.pipeline.request import DIFFUSERS_SCHEDULERS

HEIGHT, WIDTH = 128, 64
PROMPT = "a photo of an astronaut riding a horse on mars"
NEGATIVE = "blurry, low quality"


def original(kind: str, checkpoint: Path, scheduler: str = "default", **parts: Any) -> Any:
    """A pipeline of diffusers in float32 without progress bars, with another scheduler if asked for."""
    import diffusers

    if kind.startswith("StableDiffusion") and "XL" not in kind and "3" not in kind:
        parts = {"safety_checker": None, "requires_safety_checker": False, **parts}
    pipeline = getattr(diffusers, kind).from_pretrained(checkpoint, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler != "default":
        pipeline.scheduler = getattr(diffusers, DIFFUSERS_SCHEDULERS[scheduler]).from_config(pipeline.scheduler.config)
    return pipeline


def controlnets(*folders: Path) -> list[Any]:
    from diffusers import ControlNetModel

    return [ControlNetModel.from_pretrained(folder, local_files_only=True) for folder in folders]


def t2i_adapters(*folders: Path) -> list[Any]:
    from diffusers import T2IAdapter

    return [T2IAdapter.from_pretrained(folder, local_files_only=True) for folder in folders]


def numpy_latents(seed: int, count: int = 1) -> torch.Tensor:
    """What NumPy's legacy generator gives for pictures of the tests' size, drawn one picture after the other."""
    state = np.random.RandomState(seed)
    shape = (1, 4, HEIGHT // 8, WIDTH // 8)
    return torch.from_numpy(np.concatenate([state.normal(size=shape).astype(np.float32) for _ in range(count)]))


def photograph() -> Image.Image:
    """A picture with shapes and shades, of the pictures' size."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([rows * 255 // HEIGHT, columns * 255 // WIDTH, (rows + columns) % 256], axis=-1).astype(np.uint8)
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).ellipse((10, 20, 50, 90), fill=(240, 200, 40))
    return picture


def edges() -> Image.Image:
    """White lines on black."""
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).line((5, 5, 50, 100, 20, 120), fill="white", width=3)
    return picture


def likeness(pictures: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """The worst PSNR of two series of pictures, in dB of the full range of a channel."""
    assert len(pictures) == len(others)
    return min(
        _psnr(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(pictures, others, strict=True)
    )


def _psnr(values: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    error = float(np.mean((values - others) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
