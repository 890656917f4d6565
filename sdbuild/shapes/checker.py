"""Reads colour, shape, count and background off a picture, from its pixels alone.

Nothing is learnt here: the background is the border's median colour, shapes are connected regions that differ from it,
a region's colour is the nearest named one, and its shape the outline that covers it best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from sdbuild.shapes.drawing import polygon
from sdbuild.shapes.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene

_DIFFERENT = 60.0
"""Distance in 8-bit RGB from which a pixel is no background: about half of the closest pair of colours."""

_SPECK = 24
"""Regions of fewer pixels are noise, not shapes: the smallest shape that is ever drawn has 50."""

_TEMPLATE = 32


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    Attributes:
        shapes: each region's colour and shape, left to right.
        background: the nearest named background.
    """

    shapes: tuple[tuple[str, str], ...]
    background: str

    def shows(self, scene: Scene) -> bool:
        """Whether count, colours and shapes are those of a scene."""
        return self.shapes == ((scene.colour, scene.shape),) * scene.count


def read(picture: NDArray[np.uint8]) -> Reading:
    """Read a picture of (H, W, 3) 8-bit RGB."""
    pixels = picture.astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    regions, count = ndimage.label(foreground(picture))
    found = []
    for number in range(1, count + 1):
        region = regions == number
        if region.sum() < _SPECK:
            continue
        inside = ndimage.binary_erosion(region)
        colour = np.median(pixels[inside if inside.any() else region], axis=0)
        found.append((float(np.argwhere(region)[:, 1].mean()), _nearest(colour, COLOURS), _shape(region)))
    return Reading(tuple((colour, shape) for _, colour, shape in sorted(found)), _nearest(ground, BACKGROUNDS))


def foreground(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of a (H, W, 3) picture differ from its background."""
    pixels = picture.astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    different: NDArray[np.bool_] = np.linalg.norm(pixels - np.median(border, axis=0), axis=2) > _DIFFERENT
    return different


def _nearest(colour: NDArray[np.floating], names: dict[str, tuple[int, int, int]]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.array(names[name]))))


def _shape(region: NDArray[np.bool_]) -> str:
    """The shape whose template overlaps most with a region, both stretched over the same square."""
    (top, left), (bottom, right) = np.argwhere(region).min(axis=0), np.argwhere(region).max(axis=0) + 1
    cut = Image.fromarray(region[top:bottom, left:right].astype(np.uint8) * 255)
    stretched = np.asarray(cut.resize((_TEMPLATE, _TEMPLATE), Image.Resampling.BILINEAR)) > 127
    overlaps = {shape: _overlap(stretched, template) for shape, template in _templates().items()}
    return max(overlaps, key=lambda shape: overlaps[shape])


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@cache
def _templates() -> dict[str, NDArray[np.bool_]]:
    return {shape: _template(shape) for shape in SHAPES}


def _template(shape: str) -> NDArray[np.bool_]:
    corners = np.array(polygon(shape))
    low, high = corners.min(axis=0), corners.max(axis=0)
    fine = 8 * _TEMPLATE
    canvas = Image.new("L", (fine, fine))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in (corners - low) / (high - low) * fine], fill=255)
    return np.asarray(canvas.reduce(8)) > 127
