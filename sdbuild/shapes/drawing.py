"""Scenes as pixels: the pictures that `shapes` learnt from, and the outlines that its ControlNet follows."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sdbuild.shapes.scenes import BACKGROUNDS, COLOURS, SIDE, Scene

Polygon = list[tuple[float, float]]

_FINE = 4
"""Pictures are drawn at this multiple of their size and then averaged: that is what smooths their edges."""

_OUTLINE = 1.5
"""Width of an outline in pixels."""


def polygon(shape: str) -> Polygon:
    """A shape's corners around the origin, x to the right and y downwards, for a circle of radius 1."""
    match shape:
        case "circle":
            return [(cos(2 * pi * step / 48), sin(2 * pi * step / 48)) for step in range(48)]
        case "square":
            return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
        case "triangle":
            return [(0.0, -1.0), (1.08, 0.88), (-1.08, 0.88)]
        case "star":
            tips = [
                (1.15, pi * step / 5 - pi / 2) if step % 2 == 0 else (0.48, pi * step / 5 - pi / 2)
                for step in range(10)
            ]
            return [(length * cos(angle), length * sin(angle)) for length, angle in tips]
        case "heart":
            # The classic curve x = 16 sin³t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t, brought to the unit circle.
            angles = [2 * pi * step / 48 for step in range(48)]
            return [
                (
                    16 * sin(angle) ** 3 / 15,
                    -(13 * cos(angle) - 5 * cos(2 * angle) - 2 * cos(3 * angle) - cos(4 * angle) + 2.5) / 15,
                )
                for angle in angles
            ]
        case "cross":
            arm, half = 1.05, 0.36
            return [
                (-half, -arm), (half, -arm), (half, -half), (arm, -half), (arm, half), (half, half),
                (half, arm), (-half, arm), (-half, half), (-arm, half), (-arm, -half), (-half, -half),
            ]  # fmt: skip
    raise ValueError(f"there is no shape '{shape}'")


def picture(scene: Scene) -> NDArray[np.uint8]:
    """A scene as (64, 64, 3) 8-bit RGB."""
    canvas = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(canvas)
    for corners in _placed(scene):
        pen.polygon(corners, fill=COLOURS[scene.colour])
    return np.asarray(canvas.reduce(_FINE))


def outline(scene: Scene) -> NDArray[np.uint8]:
    """The edges of a scene's shapes, white on black, as (64, 64, 3) 8-bit RGB."""
    canvas = Image.new("L", (SIDE * _FINE, SIDE * _FINE))
    pen = ImageDraw.Draw(canvas)
    for corners in _placed(scene):
        pen.line([*corners, corners[0], corners[1]], fill=255, width=round(_OUTLINE * _FINE), joint="curve")
    return np.asarray(canvas.reduce(_FINE).convert("RGB"))


def mask(scene: Scene) -> NDArray[np.bool_]:
    """Which pixels lie mostly inside a shape, as (64, 64)."""
    canvas = Image.new("L", (SIDE * _FINE, SIDE * _FINE))
    pen = ImageDraw.Draw(canvas)
    for corners in _placed(scene):
        pen.polygon(corners, fill=255)
    return np.asarray(canvas.reduce(_FINE)) > 127


def _placed(scene: Scene) -> list[Polygon]:
    corners = polygon(scene.shape)
    return [
        [((x + dx * scene.radius) * _FINE, (y + dy * scene.radius) * _FINE) for dx, dy in corners]
        for x, y in scene.centres
    ]
