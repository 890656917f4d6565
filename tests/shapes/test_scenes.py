"""Scenes, their sentences, their pixels, and the checker that reads them back."""

import itertools

import numpy as np
import pytest

from sdbuild.shapes.checker import foreground, read
from sdbuild.shapes.drawing import mask, outline, picture
from sdbuild.shapes.evaluate import on_outline, questions
from sdbuild.shapes.scenes import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    COUNTS,
    RADII,
    SHAPES,
    SIDE,
    Scene,
    combinations,
    describe,
    held_out,
    sample,
)
from sdbuild.shapes.training.data import scene


def some(count: int, *, unseen: bool = False) -> list[Scene]:
    random = np.random.default_rng(7)
    return [sample(random, unseen=unseen) for _ in range(count)]


def test_the_checker_reads_what_was_drawn() -> None:
    for content in [*some(150), *some(50, unseen=True)]:
        seen = read(picture(content))
        assert seen.shows(content), (content, seen)
        assert seen.background == content.background


@pytest.mark.parametrize(
    ("name", "other"),
    [("count", {"count": 3}), ("colour", {"colour": "green"}), ("shape", {"shape": "square"})],
)
def test_the_checker_notices_another(name: str, other: dict[str, str]) -> None:
    drawn = Scene(1, "red", "circle", "large", "white", "middle", ((32.0, 32.0),), 11.0)
    assert not read(picture(drawn)).shows(Scene(**{**vars(drawn), **other}))


def test_the_checker_sees_nothing_in_an_empty_picture() -> None:
    empty = np.full((SIDE, SIDE, 3), 250, np.uint8)
    assert read(empty).shapes == ()
    assert read(empty).background == "white"


def test_specks_are_no_shapes() -> None:
    speckled = np.full((SIDE, SIDE, 3), 250, np.uint8)
    speckled[10:14, 10:14] = (220, 40, 40)
    assert read(speckled).shapes == ()


def test_held_out_combinations_are_kept_from_training_and_all_that_is_judged() -> None:
    seen, unseen = combinations(unseen=False), combinations(unseen=True)
    assert not set(seen) & set(unseen)
    assert len(seen) + len(unseen) == len(COUNTS) * len(COLOURS) * len(SHAPES)
    # Each pair of a combination is seen, so that a model can put the unseen ones together.
    for places in itertools.combinations(range(3), 2):
        assert {tuple(one[place] for place in places) for one in unseen} <= {
            tuple(one[place] for place in places) for one in seen
        }
    trained = [scene(number)[0] for number in range(500)]
    assert not any(held_out(each.count, each.colour, each.shape) for each in trained)
    judged = [question.scene for question in questions(208)]
    assert all(held_out(each.count, each.colour, each.shape) for each in judged)


def test_a_number_is_a_scene() -> None:
    assert scene(41)[0] == scene(41)[0]
    assert scene(41)[0] != scene(42)[0]


def test_shapes_lie_apart_and_inside() -> None:
    for content in some(200):
        drawn = mask(content)
        assert not drawn[[0, -1]].any()
        assert not drawn[:, [0, -1]].any()
        low, high = RADII[content.size]
        assert low <= content.radius <= high


def test_sentences_say_count_colour_and_shape() -> None:
    random = np.random.default_rng(3)
    for content in some(200):
        caption = describe(content, random)
        assert content.colour in caption.text
        assert content.shape in caption.text
        assert caption.says_background == any(name in caption.text.split() for name in _words(BACKGROUNDS))
        if caption.says_arrangement and content.arrangement in CELLS and content.arrangement != "middle":
            assert content.arrangement in caption.text


def _words(names: dict[str, tuple[int, int, int]]) -> set[str]:
    return {word for name in names for word in (name, f"{name},")}


def test_outlines_lie_on_the_shapes_that_they_are_of() -> None:
    one, other = some(2)
    assert on_outline(picture(one), one) > 0.97
    assert on_outline(picture(other), one) < 0.7
    assert outline(one).shape == (SIDE, SIDE, 3)
    assert (foreground(picture(one)) == mask(one)).mean() > 0.98
