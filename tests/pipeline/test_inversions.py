"""Textual inversions in prompts: written out once, wherever they stand."""

from __future__ import annotations

import pytest

from sdbuild.pipeline.inversions import expand, split

INVERSIONS = [
    {"token": "<toy>", "tokens": ["<toy>", "<toy>_1", "<toy>_2"]},
    {"token": "style", "tokens": ["style"]},
    {"token": "style-b", "tokens": ["style-b", "style-b_1"]},
]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a fox", "a fox"),
        ("a <toy> on mars", "a <toy> <toy>_1 <toy>_2 on mars"),
        ("<toy>, <toy>", "<toy> <toy>_1 <toy>_2, <toy> <toy>_1 <toy>_2"),
        ("a <TOY>.", "a <TOY> <toy>_1 <toy>_2."),
        ("a <toy> <toy>_1 <toy>_2 on mars", "a <toy> <toy>_1 <toy>_2 on mars"),
        ("a <toy>_1", "a <toy>_1"),
        ("in style, in style-b", "in style, in style-b style-b_1"),
    ],
)
def test_words_of_several_vectors_are_written_out(prompt: str, expected: str) -> None:
    assert expand(prompt, INVERSIONS) == expected
    assert expand(expected, INVERSIONS) == expected
    assert expand(prompt, []) == prompt


def test_a_prompt_is_cut_at_the_longest_tokens() -> None:
    parts = [("a ", False), ("<toy>_1", True), (", ", False), ("Style-b", True), ("", False)]
    assert list(split("a <toy>_1, Style-b", INVERSIONS)) == parts
    assert list(split("a fox", [])) == [("a fox", False)]
