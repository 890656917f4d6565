"""Pictures in and out: arrays, PNG files with their story in the metadata, and file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from sdbuild.pipeline.errors import RequestError

PROMPT_CHARACTERS = 75
"""How much of the prompt a file name holds; the Swift package's command line keeps as much."""

_NAME_BYTES = 200
# File systems allow 255 bytes; the rest is for number, seed and suffixes.

_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_CLIP_SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
# Mean and spread of the pictures that CLIP was trained on (Radford et al., 2021, released preprocessing).
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)
# ImageNet's, as torchvision's models are fed; the Swift package feeds CLIP so (SafetyChecker.swift).


def open_picture(path: Path) -> Image.Image:
    """A picture from a file, turned as the camera says.

    Raises:
        RequestError: there is no such file, or it is no picture.
    """
    try:
        with Image.open(path) as picture:
            turned: Image.Image = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise RequestError(f"{path}: no such picture") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"{path}: this is no picture that can be read ({error})") from None
    return turned


def to_signed(picture: Image.Image, height: int, width: int) -> NDArray[np.float32]:
    """A picture as (1, 3, height, width) in ±1."""
    return to_unit(picture, height, width) * 2 - 1


def to_unit(picture: Image.Image, height: int, width: int, channels: int = 3) -> NDArray[np.float32]:
    """A picture as (1, channels, height, width) in 0–1, in grey for one channel, resized where its size differs."""
    converted = picture.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.LANCZOS)
    values = np.asarray(converted, np.float32).reshape(height, width, channels) / 255
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def from_signed(values: NDArray[np.float32]) -> Image.Image:
    """(1, 3, height, width) in ±1 as a picture."""
    pixels = np.clip(values[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1)
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def to_clip(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """A picture as CLIP's vision model wants it: (1, 3, size, size), centre-cropped and normalised."""
    rgb = picture.convert("RGB")
    width, height = (size * side // min(rgb.size) for side in rgb.size)
    rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    rgb = rgb.crop((left, top, left + size, top + size))
    values = (np.asarray(rgb, np.float32) / 255 - _CLIP_MEAN) / _CLIP_SPREAD
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def to_imagenet(picture: Image.Image, width: int, height: int) -> NDArray[np.float32]:
    """A picture as the Swift package shows it to the safety checker: (1, 3, width, height), stretched and normalised.

    The package has Core Graphics resize it in high quality, whose filter is not published; Lanczos stands for it.
    """
    rgb = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    values = (np.asarray(rgb, np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_SPREAD
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def file_name(prompt: str, seed: int, *, index: int | None = None) -> str:
    """`a_photo_of_an_astronaut.93.png`; `index` tells pictures of one prompt and seed apart."""
    words = re.sub(r"[^\w.,'-]+", "_", prompt[:PROMPT_CHARACTERS])
    words = words.encode()[:_NAME_BYTES].decode(errors="ignore").strip("._") or "picture"
    number = "" if index is None else f".{index}"
    return f"{words}{number}.{seed}.png"


def save(picture: Image.Image, path: Path, story: Mapping[str, str]) -> None:
    """Write a PNG whose text chunks hold `story`; the file appears whole or not at all."""
    metadata = PngInfo()
    for key, value in story.items():
        metadata.add_itxt(key, value)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        picture.save(temporary, format="PNG", pnginfo=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
