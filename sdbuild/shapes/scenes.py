"""What `shapes` can draw: scenes of one to three equal shapes on a plain background, and sentences that describe them.

Everything is drawn from a seeded generator, so that a number is a picture: the model was trained on scenes of whole
numbers, and is judged on scenes whose combination of count, colour and shape it has never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import hypot

import numpy as np

SIDE = 64
"""Rows and columns of a picture, in pixels."""

COLOURS = {
    "red": (220, 40, 40),
    "orange": (250, 145, 20),
    "yellow": (250, 225, 50),
    "green": (40, 165, 75),
    "blue": (40, 85, 225),
    "purple": (145, 50, 185),
}
"""Name → 8-bit RGB of a shape."""

BACKGROUNDS = {
    "white": (250, 250, 250),
    "grey": (150, 150, 150),
    "black": (20, 20, 20),
    "pink": (255, 195, 210),
    "brown": (110, 70, 40),
}
"""Name → 8-bit RGB of what is behind the shapes."""

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")

FORBIDDEN = "cross"
"""The shape that the safety checker finds, so that it can be seen at work."""

COUNTS = (1, 2, 3)

RADII = {"small": (7.4, 8.2), "large": (10.5, 12.0)}
"""Size → the range of the circle that a shape is drawn around, in pixels."""

_THIRDS = {"left": 15.5, "middle": 32.0, "right": 48.5}
CELLS = {
    "top left": ("left", "left"),
    "top": ("middle", "left"),
    "top right": ("right", "left"),
    "left": ("left", "middle"),
    "middle": ("middle", "middle"),
    "right": ("right", "middle"),
    "bottom left": ("left", "right"),
    "bottom": ("middle", "right"),
    "bottom right": ("right", "right"),
}
"""Position of a single shape → its thirds across and down."""

LINES = ("row", "column")
"""Arrangements of several shapes that sentences can ask for."""

_REACH = 1.15
_GAP = 2.5
_MARGIN = 1.0
# How far a shape reaches, as a multiple of its radius; what lies between two shapes, and before the edge, in pixels.
_HELD_OUT_IN_16 = 2


@dataclass(frozen=True)
class Scene:
    """One picture's content.

    Attributes:
        size: a key of `RADII`.
        arrangement: a key of `CELLS` for one shape, one of `LINES`, or None for shapes that lie anywhere.
        centres: of each shape, in pixels from the left and from the top.
        radius: of the circle that each shape is drawn around, in pixels.
    """

    count: int
    colour: str
    shape: str
    size: str
    background: str
    arrangement: str | None
    centres: tuple[tuple[float, float], ...]
    radius: float


def held_out(count: int, colour: str, shape: str) -> bool:
    """Whether a combination is kept from training, fixed by a digest of its words: one in eight."""
    digest = sha256(f"{count} {colour} {shape}".encode()).digest()
    return digest[0] % 16 < _HELD_OUT_IN_16


def legible(scene: Scene) -> bool:
    """Whether a picture of 64×64 pixels can be asked for a scene.

    A small star is 17 pixels wide, and its tips are lost in the four numbers that the latents have for each 8×8 pixels.
    """
    return (scene.shape, scene.size) != ("star", "small")


@cache  # every scene is drawn from them
def combinations(*, unseen: bool) -> tuple[tuple[int, str, str], ...]:
    """Every combination of count, colour and shape that is, or is not, kept from training."""
    every = [(count, colour, shape) for count in COUNTS for colour in COLOURS for shape in SHAPES]
    return tuple(combination for combination in every if held_out(*combination) == unseen)


def sample(random: np.random.Generator, *, unseen: bool = False) -> Scene:
    """A scene of a combination that training sees, or of one that it does not."""
    choices = combinations(unseen=unseen)
    count, colour, shape = choices[random.integers(len(choices))]
    # Three large shapes do not fit.
    size = ("small", "large")[random.integers(2)] if count < 3 else "small"
    background = list(BACKGROUNDS)[random.integers(len(BACKGROUNDS))]
    radius = float(random.uniform(*RADII[size]))
    arrangement = _arrangement(random, count)
    centres = _centres(random, count, radius, arrangement)
    return Scene(count, colour, shape, size, background, arrangement, centres, radius)


def _arrangement(random: np.random.Generator, count: int) -> str | None:
    if count == 1:
        return list(CELLS)[random.integers(len(CELLS))]
    choices = (*LINES, None)
    return choices[random.integers(len(choices))]


def _centres(
    random: np.random.Generator, count: int, radius: float, arrangement: str | None
) -> tuple[tuple[float, float], ...]:
    if arrangement in CELLS:
        across, down = (_THIRDS[third] + float(random.uniform(-1, 1)) for third in CELLS[arrangement])
        return ((across, down),)
    if arrangement is not None:
        least = 2.15 * radius + _GAP
        step = float(random.uniform(least, (SIDE - 2 * _MARGIN - 2 * _REACH * radius) / (count - 1)))
        middle = SIDE / 2 + float(random.uniform(-10, 10))
        places = [SIDE / 2 + step * (index - (count - 1) / 2) for index in range(count)]
        return tuple((place, middle) if arrangement == "row" else (middle, place) for place in places)
    return _anywhere(random, count, radius)


def _anywhere(random: np.random.Generator, count: int, radius: float) -> tuple[tuple[float, float], ...]:
    """Places at random that do not touch."""
    low, high = radius * _REACH + _MARGIN, SIDE - radius * _REACH - _MARGIN
    while True:
        places = [(float(random.uniform(low, high)), float(random.uniform(low, high))) for _ in range(count)]
        pairs = [(one, other) for index, one in enumerate(places) for other in places[:index]]
        if all(hypot(one[0] - other[0], one[1] - other[1]) > 2.2 * radius + _GAP for one, other in pairs):
            return tuple(places)


_NUMBERS = {1: ("a", "one", "a single"), 2: ("two", "2", "a pair of"), 3: ("three", "3")}
_OPENINGS = ("", "", "", "a picture of ", "a drawing of ", "an image of ", "draw ", "please paint ")
_PLURALS = {"cross": "crosses"}
_GROUNDS = (" on a {} background", " on {}", ", {} background", " in front of a {} wall")
_SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big")}


@dataclass(frozen=True)
class Caption:
    """A sentence, and which of the things that may stay unsaid it says."""

    text: str
    says_size: bool
    says_arrangement: bool
    says_background: bool


def describe(scene: Scene, random: np.random.Generator) -> Caption:
    """One of the many sentences that ask for a scene; size, position and background may stay unsaid."""

    def one_of(words: tuple[str, ...]) -> str:
        return words[random.integers(len(words))]

    says_size, says_background = random.random() < 0.5, random.random() < 0.85
    says_arrangement = scene.arrangement is not None and random.random() < 0.75
    number = one_of(_NUMBERS[scene.count])
    size = one_of(_SIZES[scene.size]) + " " if says_size else ""
    noun = scene.shape if scene.count == 1 else _PLURALS.get(scene.shape, scene.shape + "s")
    if number == "a" and (size or scene.colour)[0] in "aeiou":
        number = "an"
    text = f"{one_of(_OPENINGS)}{number} {size}{scene.colour} {noun}"
    if says_arrangement and scene.arrangement is not None:
        text += _place(scene.arrangement, one_of)
    if says_background:
        text += one_of(_GROUNDS).format(scene.background)
    return Caption(text, says_size, says_arrangement, says_background)


def _place(where: str, one_of: Callable[[tuple[str, ...]], str]) -> str:
    if where in LINES:
        return one_of({"row": (" in a row", " side by side"), "column": (" in a column", " above each other")}[where])
    if where == "middle":
        return one_of((" in the middle", " in the centre"))
    if " " in where:
        return one_of((" in the {} corner", " at the {}", " in the {}")).format(where)
    return one_of((" at the {}", " on the {} side")).format(where)
