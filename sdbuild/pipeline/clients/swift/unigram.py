"""The unigram language model as swift-transformers has it: the best way to cut a text into pieces.

Pieces and the places between them are counted in characters of Swift; scores are added in single precision, the first
of equal ways is taken, and each character without a piece is an unknown piece of its own.

Sources: UnigramTokenizer.swift and TokenLattice.swift of huggingface/swift-transformers 0.1.8; Kudo 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from sdbuild.bundle.swift_strings import canonical, characters

_UNKNOWN_PENALTY = np.float32(10)
_NOTHING = np.float32(0)


@dataclass(frozen=True)
class _Node:
    """A piece at its place, at the end of the best way to it.

    Attributes:
        start: the place where it begins.
        total: the score of the way, this piece included.
        before: the piece before it; None at the start of the text.
    """

    start: int
    total: np.float32
    before: _Node | None


class Unigram:
    """A vocabulary with scores.

    Attributes:
        ids: piece → id.
        unknown: the id of the unknown piece.
    """

    def __init__(self, vocabulary: Sequence[tuple[str, float]], unknown: int) -> None:
        self.ids = {canonical(piece): number for number, (piece, _) in enumerate(vocabulary)}
        self.unknown = unknown
        self._scores = {canonical(piece): np.float32(score) for piece, score in vocabulary}
        self._unknown_score = min(self._scores.values()) - _UNKNOWN_PENALTY
        self._longest = max(len(characters(piece)) for piece in self.ids)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text."""
        letters = regex.findall(r"\X", text)
        keys = [canonical(letter) for letter in letters]
        # For each place, the pieces that end there: those that begin first come first.
        ending: list[list[_Node]] = [[_Node(0, _NOTHING, None)], *([] for _ in keys)]
        for start in range(len(keys)):
            for end in range(start + 1, min(start + self._longest, len(keys)) + 1):
                score = self._scores.get("".join(keys[start:end]))
                if score is None and end == start + 1:
                    score = self._unknown_score
                if score is not None:
                    before = _best(ending[start], score)
                    ending[end].append(_Node(start, before.total + score, before))
        pieces, end, node = [], len(keys), _best(ending[-1], _NOTHING)
        while node.before is not None:
            pieces.append("".join(letters[node.start : end]))
            end, node = node.start, node.before
        return pieces[::-1]


def _best(nodes: Sequence[_Node], score: np.float32) -> _Node:
    """The piece that another with that score follows best."""
    return max(nodes, key=lambda node: node.total + score)
