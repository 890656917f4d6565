"""Byte-pair encoding as the Swift package does it, with `vocab.json` and `merges.txt` and nothing else.

Unlike CLIP's own tokenizer it knows no added tokens and no regular expression: it lowercases, splits at spaces, and
merges the characters of each word, whatever they are (swift/StableDiffusion/tokenizer/BPETokenizer.swift of
apple/ml-stable-diffusion). A character is a code point here and a grapheme there, which is the same in ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
        self._ranks[pair] = self._count
        self._count += 1

    def encode(self, text: str) -> list[str]:
        """The tokens of a text, without those that start and end it."""
        return [token for word in text.strip().lower().split(" ") if word for token in self.merged(symbols(word))]

    def merged(self, word: Sequence[str]) -> list[str]:
        """Merge a word's symbols until no merge is left: always the first in the list, wherever its pair occurs."""
        found = list(word)
        while candidates := [pair for pair in pairwise(found) if pair in self._ranks]:
            found = _merge(found, min(candidates, key=self._ranks.__getitem__))
        return found


def symbols(word: str, end: str = WORD_END) -> list[str]:
    """A word's characters, the last of them with the mark of a word's end; `end=""` for a word that goes on."""
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
