"""Reads colour, shape, count and background off a picture, from its pixels alone.

Nothing is learnt here: the background is the border's median colour, shapes are connected regions that differ from it,
a region's colour is the nearest named one, and its shape the one that covers it best when it is drawn at the region's
centre with the region's area. Edges may be blurred, as an autoencoder's are: a pixel belongs to a shape by the part of
the way that its colour has gone from the background's to the shape's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from sdbuild.shapes.drawing import polygon
from sdbuild.shapes.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene

Floats = NDArray[np.float32]

_DIFFERENT = 60.0
"""Distance in 8-bit RGB that a picture with shapes has somewhere: about half of the closest pair of colours."""

_SPECK = 24
"""Regions of fewer pixels are noise, not shapes: the smallest shape that is ever drawn has over 60."""

_BLUR = 0.8
"""Deviation, in pixels, of the blur of what a region is compared with."""

_FINE = 8
_AROUND = 3


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
    cover = coverage(picture)
    regions, count = ndimage.label(cover > 0.5)
    found = []
    for number in range(1, count + 1):
        region = regions == number
        if region.sum() < _SPECK:
            continue
        inside = ndimage.binary_erosion(region)
        colour = np.median(picture[inside if inside.any() else region], axis=0)
        # What blurs beyond the region belongs to it, unless it belongs to another.
        around = ndimage.binary_dilation(region, iterations=_AROUND) & (region | (regions == 0))
        found.append((float(np.argwhere(region)[:, 1].mean()), _nearest(colour, COLOURS), _shape(cover * around)))
    shapes = tuple((colour, shape) for _, colour, shape in sorted(found))
    return Reading(shapes, _nearest(_background(picture), BACKGROUNDS))


def coverage(picture: NDArray[np.uint8]) -> Floats:
    """How much of each pixel of a (H, W, 3) picture a shape covers, 0 to 1."""
    distance = np.linalg.norm(picture.astype(np.float32) - _background(picture), axis=2)
    contrast = float(np.quantile(distance, 0.99))
    if contrast < _DIFFERENT:
        return np.zeros(distance.shape, np.float32)
    covered: Floats = np.clip(distance / contrast, 0, 1).astype(np.float32)
    return covered


def foreground(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of a (H, W, 3) picture shapes cover for the greater part."""
    return coverage(picture) > 0.5


def _background(picture: NDArray[np.uint8]) -> Floats:
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    median: Floats = np.median(border.astype(np.float32), axis=0)
    return median


def _nearest(colour: NDArray[np.floating], names: dict[str, tuple[int, int, int]]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.array(names[name]))))


def _shape(cover: Floats) -> str:
    """The shape that overlaps most with a region, drawn at its centre with its area."""
    overlaps = {shape: _overlap(cover, _like(cover, shape)) for shape in SHAPES}
    return max(overlaps, key=lambda shape: overlaps[shape])


def _overlap(one: Floats, other: Floats) -> float:
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def _like(cover: Floats, shape: str) -> Floats:
    """A shape with the centre and the area of a region, blurred a little."""
    corners = np.array(polygon(shape))
    area, centre = _area_and_centre(corners)
    rows, columns = np.mgrid[0 : cover.shape[0], 0 : cover.shape[1]] + 0.5
    middle = np.array([(cover * columns).sum(), (cover * rows).sum()]) / cover.sum()
    placed = (corners - centre) * np.sqrt(cover.sum() / area) + middle
    canvas = Image.new("L", (cover.shape[1] * _FINE, cover.shape[0] * _FINE))
    ImageDraw.Draw(canvas).polygon([(float(x) * _FINE, float(y) * _FINE) for x, y in placed], fill=255)
    drawn: Floats = ndimage.gaussian_filter(np.asarray(canvas.reduce(_FINE), np.float32) / 255, _BLUR)
    return drawn


def _area_and_centre(corners: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Area and centre of gravity of a polygon, by the shoelace formula."""
    after = np.roll(corners, -1, axis=0)
    crosses = corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1]
    centre: NDArray[np.float64] = ((corners + after) * crosses[:, None]).sum(axis=0) / (3 * crosses.sum())
    return abs(float(crosses.sum())) / 2, centre
