"""Byte-pair encoding as the Swift package does it, with `vocab.json` and `merges.txt` and nothing else.

Unlike CLIP's own tokenizer it knows no added tokens, no bytes and no regular expression: it lower-cases, splits at
spaces alone, and merges the characters of each word, whatever they are (BPETokenizer.swift and
BPETokenizer+Reading.swift of apple/ml-stable-diffusion at e12202c). A character is what Swift calls one: see
`swift_strings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sdbuild.bundle.swift_strings import canonical, characters, lowercased, split_at_spaces, trimmed

WORD_END = "</w>"
"""Ends the last symbol of a word."""

Pair = tuple[str, str]


class BytePairs:
    """The merges of a `merges.txt`, in their order."""

    def __init__(self, merges: str) -> None:
        # Lines that start with # are comments to the Swift package, whatever they merge.
        lines = [line.split(" ") for line in merges.split("\n") if line.strip() and not line.startswith("#")]
        self._ranks: dict[Pair, int] = {}
        self._count = 0
        for first, second in lines:
            self.append((first, second))

    def append(self, pair: Pair) -> None:
        """Add a merge that is done when no other can be."""
        self._ranks[canonical(pair[0]), canonical(pair[1])] = self._count
        self._count += 1

    def encode(self, text: str) -> list[str]:
        """The tokens of a text, without those that start and end it."""
        words = split_at_spaces(lowercased(trimmed(text)))
        return [token for word in words for token in self.merged(_ended(word, WORD_END))]

    def merged(self, word: Sequence[str]) -> list[str]:
        """Merge a word's symbols until no merge is left: always the first in the list, wherever its pair occurs."""
        found = list(word)
        while candidates := [pair for pair in pairwise(found) if pair in self._ranks]:
            found = _merge(found, min(candidates, key=self._ranks.__getitem__))
        return found


def symbols(word: str, end: str = WORD_END) -> list[str]:
    """A word's characters, the last of them with the mark of a word's end; `end=""` for a word that goes on."""
    return _ended(characters(word), end)


def _ended(word: list[str], end: str) -> list[str]:
    return [*word[:-1], word[-1] + end]


def _merge(word: list[str], pair: Pair) -> list[str]:
    """Merge every occurrence of a pair, from the left."""
    merged: list[str] = []
    position = 0
    while position < len(word):
        if tuple(word[position : position + 2]) == pair:
            merged.append("".join(pair))
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged
