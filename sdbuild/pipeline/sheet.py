"""Contact sheets: prompts down, precisions across, so that one look shows what compression costs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdbuild.bundle.document import read_document
from sdbuild.bundle.layout import RESOURCES
from sdbuild.pipeline.random_sources import NumpySource
from sdbuild.pipeline.request import Request

_CELL = 144
_GAP = 12
_PROMPT = 176
_HEAD = 54
_FOOT = 20
_INK, _FAINT, _PAPER = (28, 28, 30), (120, 120, 126), (255, 255, 255)
_LETTERS_A_LINE = 22
_EQUAL = 99.0  # what is shown for two pictures without any difference


def draw_original(
    checkpoint: Path, prompts: Sequence[str], request: Request, latent_shape: tuple[int, ...]
) -> list[Image.Image]:
    """Pictures by diffusers' own pipeline in float32, from the random numbers that bundles are drawn with.

    The scheduler is the checkpoint's own.

    Args:
        checkpoint: a directory in diffusers layout; a safety checker is not needed.
        prompts: what to draw.
        request: steps, seed and guidance.
        latent_shape: (1, channels, rows, columns).
    """
    import torch
    from diffusers import DiffusionPipeline

    named = json.loads((checkpoint / "model_index.json").read_text(encoding="utf-8"))
    unused: dict[str, Any] = {name: None for name in ("safety_checker", "feature_extractor") if name in named}
    if unused:
        unused["requires_safety_checker"] = False
    pipeline = DiffusionPipeline.from_pretrained(checkpoint, local_files_only=True, torch_dtype=torch.float32, **unused)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for prompt in prompts:
        noise = NumpySource(request.seed).normal(latent_shape)
        drawn = pipeline(
            prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            latents=torch.from_numpy(noise),
            height=8 * latent_shape[2],
            width=8 * latent_shape[3],
        )
        pictures.append(drawn.images[0])
    return pictures


def likeness(one: Image.Image, other: Image.Image) -> float:
    """PSNR of two pictures in dB, to a tenth; 99 for equal ones."""
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    error = float(np.mean(np.square(difference)))
    return _EQUAL if error == 0 else round(10 * math.log10(255**2 / error), 1)


def weight_of(bundle: Path) -> str:
    """The size of a bundle's UNet, for people."""
    models = read_document(bundle)["models"]
    packages = [bundle / RESOURCES / model["file"] for name, model in models.items() if name.startswith("Unet")]
    size = sum(path.stat().st_size for package in packages for path in package.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def lay_out(
    prompts: Sequence[str],
    drawn: Mapping[str, Sequence[Image.Image]],
    captions: Mapping[str, str],
    ratios: Mapping[str, Sequence[float]],
) -> Image.Image:
    """The sheet.

    Args:
        prompts: what each row shows.
        drawn: column → its pictures, top to bottom; names become headings, with a space for each `-`.
        captions: column → what stands below its heading.
        ratios: column → what stands below each of its pictures, in dB; the first column has none.
    """
    width = _GAP + _PROMPT + len(drawn) * (_CELL + _GAP)
    height = _HEAD + len(prompts) * (_CELL + _FOOT + _GAP)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    large, small = (ImageFont.load_default(size) for size in (16, 13))
    for row, prompt in enumerate(prompts):
        top = _HEAD + row * (_CELL + _FOOT + _GAP)
        pen.multiline_text((_GAP, top), "\n".join(textwrap.wrap(prompt, _LETTERS_A_LINE)), _INK, large, spacing=5)
    for number, (column, pictures) in enumerate(drawn.items()):
        left = _GAP + _PROMPT + number * (_CELL + _GAP)
        pen.text((left, 10), column.replace("-", " "), _INK, large)
        pen.text((left, 31), captions.get(column, ""), _FAINT, small)
        for row, picture in enumerate(pictures):
            top = _HEAD + row * (_CELL + _FOOT + _GAP)
            page.paste(picture.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (left, top))
            if column in ratios:
                pen.text((left, top + _CELL + 3), f"{ratios[column][row]:.1f} dB", _FAINT, small)
    return page
