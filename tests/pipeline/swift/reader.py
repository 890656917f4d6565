"""How the Swift package reads prompts, once more, from docs/reference/client.md alone.

Characters are found by the rules of UAX #29 one by one, equal strings share their decomposed form here, merges are done
in one long string, and the best way through T5's pieces is found backwards.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import regex

START, END = "<|startoftext|>", "<|endoftext|>"


def is_a(kind: str, scalar: str) -> bool:
    return regex.match(rf"\p{{{kind}}}", scalar) is not None


@cache
def cluster_break(scalar: str) -> str:
    """The property Grapheme_Cluster_Break, with pictographs as a kind of their own."""
    kinds = "CR LF Control Extend ZWJ Regional_Indicator Prepend SpacingMark L V T LV LVT"
    for kind in kinds.split():
        if is_a(f"Grapheme_Cluster_Break={kind}", scalar):
            return kind
    return "Pictographic" if is_a("Extended_Pictographic", scalar) else "Other"


def joins(before: str, scalar: str) -> bool:
    """Whether a scalar belongs to the character that the text `before` ends with: GB3 to GB13."""
    left, right = cluster_break(before[-1]), cluster_break(scalar)
    if left == "CR" and right == "LF":
        return True
    if {left, right} & {"CR", "LF", "Control"}:
        return False
    hangul = {"L": ("L", "V", "LV", "LVT"), "LV": ("V", "T"), "V": ("V", "T"), "LVT": ("T",), "T": ("T",)}
    if right in hangul.get(left, ()) or right in ("Extend", "ZWJ", "SpacingMark") or left == "Prepend":
        return True
    if is_a("InCB=Consonant", scalar):
        place, linked = len(before), False
        while place and (is_a("InCB=Extend", before[place - 1]) or is_a("InCB=Linker", before[place - 1])):
            place -= 1
            linked = linked or is_a("InCB=Linker", before[place])
        if linked and place and is_a("InCB=Consonant", before[place - 1]):
            return True
    if left == "ZWJ" and right == "Pictographic":
        place = len(before) - 1
        while place and cluster_break(before[place - 1]) == "Extend":
            place -= 1
        return bool(place) and cluster_break(before[place - 1]) == "Pictographic"
    if left == right == "Regional_Indicator":
        flags = len(before) - len(before.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
        return flags % 2 == 1
    return False


def characters(text: str) -> list[str]:
    found: list[str] = []
    for place, scalar in enumerate(text):
        if found and joins(text[:place], scalar):
            found[-1] += scalar
        else:
            found.append(scalar)
    return found


def same(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def is_white(scalar: str) -> bool:
    return unicodedata.category(scalar).startswith("Z") or scalar in "\t\n\v\f\r\x85\u200b"


def trim(text: str) -> str:
    while text and is_white(text[0]):
        text = text[1:]
    while text and is_white(text[-1]):
        text = text[:-1]
    return text


class Clip:
    """CLIP's byte pairs."""

    def __init__(self, vocabulary: Mapping[str, int], merges: str) -> None:
        self.ids = {same(token): number for token, number in vocabulary.items()}
        self.order: dict[str, int] = {}
        for number, line in enumerate(merges.split("\n")[:-1]):
            if line and line[0] != "#":
                first, second = map(same, line.split(" "))
                self.order[f"\ue000{first}\ue000\ue000{second}\ue000"] = number

    def words(self, text: str) -> Iterator[list[str]]:
        word: list[str] = []
        # No capital sigma is left for Python's own rule about the end of a word.
        for character in [*characters(trim(text).replace("Σ", "σ").lower()), " "]:
            if character != " ":
                word.append(same(character))
            elif word:
                yield [*word[:-1], word[-1] + "</w>"]
                word = []

    def tokens(self, text: str) -> Iterator[str]:
        for word in self.words(text):
            joined = "".join(f"\ue000{symbol}\ue000" for symbol in word)
            while True:
                symbols = joined.strip("\ue000").split("\ue000\ue000")
                pairs = {f"\ue000{first}\ue000\ue000{second}\ue000" for first, second in pairwise(symbols)}
                known = [pair for pair in pairs if pair in self.order]
                if not known:
                    break
                pair = min(known, key=self.order.__getitem__)
                joined = joined.replace(pair, pair.replace("\ue000\ue000", ""))
            yield from symbols

    def read(self, text: str, length: int, padding: str = END) -> list[int]:
        tokens = [START, *self.tokens(text), END]
        tokens += [padding] * length
        return [self.ids.get(token, self.ids[END]) for token in tokens[:length]]


class T5:
    """A unigram model behind a precompiled table and a metaspace."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self.pieces = {same(piece): (number, score) for number, (piece, score) in enumerate(whole["model"]["vocab"])}
        self.lowest = np.float32(min(score for _, score in self.pieces.values()))

    def read(self, text: str, length: int) -> list[int]:
        ids = [number for word in self.words(self.clean(text)) for number in self.best(word)]
        ids = [*ids[: length - 1], 1]
        return ids + [0] * (length - len(ids))

    def clean(self, text: str) -> str:
        made = ""
        for scalar in text:
            number = ord(scalar)
            if scalar in "\t\n\f\r\u1680\u2028\u2029\u2581\ufeff\ufffd" or 0x200B <= number <= 0x200F:
                made += " "
            elif not (0 < number < 32 or number in (0x7F, 0x8F, 0x9F)):
                made += scalar
        parts = made.split("\uff5e")
        kept = [part for place, part in enumerate(parts) if part or place == len(parts) - 1]
        return "\uff5e".join(unicodedata.normalize("NFKC", part) for part in kept)

    def words(self, text: str) -> Iterator[str]:
        word = ""
        for scalar in [*text, " "]:
            if not (unicodedata.category(scalar).startswith("Z") or scalar in "\t\n\f\r"):
                word += scalar
            elif word:
                yield "▁" + word
                word = ""

    def best(self, word: str) -> list[int]:
        letters = [same(letter) for letter in characters(word)]

        @cache
        def way(start: int, end: int) -> tuple[np.float32, tuple[int, ...]] | None:
            """The best way to the piece from `start` to `end`, and its score."""
            number, score = self.pieces.get("".join(letters[start:end]), (2, None))
            if score is None:
                if end - start > 1:
                    return None
                score = self.lowest - np.float32(10)
            total, before = last(start, np.float32(score))
            return total + np.float32(score), (*before, number)

        def last(end: int, following: np.float32) -> tuple[np.float32, tuple[int, ...]]:
            if end == 0:
                return np.float32(0), ()
            ways = [found for start in range(end) if (found := way(start, end)) is not None]
            return max(ways, key=lambda found: found[0] + following)

        return list(last(len(letters), np.float32(0))[1])
