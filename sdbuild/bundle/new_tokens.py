"""New tokens for a CLIP tokenizer, reachable by `vocab.json` and `merges.txt` alone.

The Swift package knows no added tokens, so a new one must come about by merges. The existing merges cut its text into
pieces; new merges, which come after all others and so are done when no other can be, join two of the pieces and then
the rest to them, one after the other. What arises on the way needs an entry in the vocabulary too, because another word
may end there: it gets the vector of its longest piece.

A token of at most two pieces changes no word that does not contain it. With more pieces, the first two that are joined
(`Token.changes`) are joined wherever they meet: by pairs alone that cannot be avoided. The pair is taken that is the
least likely to occur elsewhere: no part of a word that the vocabulary knows, with a bracket, long, and never the last
one, because words share their endings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sdbuild.bundle.byte_pairs import WORD_END, BytePairs, Pair, symbols
from sdbuild.bundle.errors import BundleError


@dataclass(frozen=True)
class Vector:
    """One of an embedding's vectors.

    Attributes:
        embedding: what the embedding is called.
        number: which of its vectors.
    """

    embedding: str
    number: int


@dataclass(frozen=True)
class Token:
    """A token and those of its further vectors.

    Attributes:
        text: as it is written in a prompt, in lower case.
        names: `text`, `text_1`, …: one a vector.
        changes: other words that contain one of these are read otherwise than before.
    """

    text: str
    names: tuple[str, ...]
    changes: tuple[str, ...]


def names_of(text: str, vectors: int) -> tuple[str, ...]:
    """The tokens of an embedding's vectors, by the convention of diffusers."""
    return (text, *(f"{text}_{number}" for number in range(1, vectors)))


class NewTokens:
    """A vocabulary with its merges, and what is added to both.

    Attributes:
        first: the first new id.
        merges: the new merges, in order.
        rows: new entry → what its vector is: an embedding's, or that of an entry that was there, by its id. The
            entries' ids are `first`, `first + 1`, …
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: str) -> None:
        self.first = max(vocabulary.values()) + 1
        self.merges: list[Pair] = []
        self.rows: dict[str, Vector | int] = {}
        self._vocabulary = vocabulary
        self._pairs = BytePairs(merges)
        self._taken: dict[str, str] = {}
        self._longest: dict[str, str] = {}

    @property
    def vocabulary(self) -> dict[str, int]:
        """The whole vocabulary, new entries last."""
        return {**self._vocabulary, **{entry: self.first + index for index, entry in enumerate(self.rows)}}

    def add(self, embedding: str, text: str, vectors: int) -> Token:
        """Make the tokens of one embedding reachable.

        Each is made twice: where it ends a word, and where something follows, such as a comma.

        Raises:
            BundleError: the vocabulary or another embedding has such a token, or lacks one of its characters.
        """
        text = text.lower()
        names = names_of(text, vectors)
        changes: list[str] = []
        for number, name in enumerate(names):
            self._check(embedding, name)
            for end in ("", WORD_END):
                changes += self._reach(symbols(name, end))
                self.rows[name + end], self._longest[name + end] = Vector(embedding, number), name + end
        token = Token(text, names, tuple(dict.fromkeys(changes)))
        for name in self._taken:
            if self._pairs.merged(symbols(name)) != [name + WORD_END]:
                raise BundleError(f"{embedding}: no merges can tell the tokens {name} and {text} apart. Name another.")
        return token

    def _check(self, embedding: str, name: str) -> None:
        if missing := sorted({*symbols(name), *symbols(name, "")} - self._vocabulary.keys()):
            raise BundleError(f"{embedding}: the tokenizer has no {missing[0]}, which {name} is written with")
        if name in self._taken:
            raise BundleError(f"{embedding}: {name} is the token of {self._taken[name]} too. Name another.")
        if {name, name + WORD_END} & self._vocabulary.keys():
            raise BundleError(f"{embedding}: the tokenizer's vocabulary has {name} already. Name another token for it.")
        self._taken[name] = embedding

    def _reach(self, word: list[str]) -> Iterator[str]:
        """Add merges until a word is one token; yields what is joined of old pieces that are not the whole word."""
        while len(pieces := self._pairs.merged(word)) > 1:
            pair = self._next(pieces)
            if len(pieces) > 2 and not self.rows.keys() & {*pair}:
                yield "".join(pair)
            self.merges.append(pair)
            self._pairs.append(pair)
            if (joined := "".join(pair)) not in self._vocabulary and joined not in self.rows:
                longest = max((self._longest.get(piece, piece) for piece in pair), key=_weight)
                self.rows[joined] = self.rows[longest] if longest in self.rows else self._vocabulary[longest]
                self._longest[joined] = longest

    def _next(self, pieces: list[str]) -> Pair:
        pairs = list(pairwise(pieces))
        for index, piece in enumerate(pieces):
            if piece in self.rows:
                # What has been joined grows, so that nothing else is.
                return pairs[max(index - 1, 0)]
        return max(pairs[:-1] or pairs, key=self._rarity)

    def _rarity(self, pair: Pair) -> tuple[bool, bool, int]:
        joined = "".join(pair)
        known = any(joined in entry for entry in self._vocabulary)
        return not known, bool({*"<>"} & {*joined.removesuffix(WORD_END)}), len(joined.removesuffix(WORD_END))


def _weight(piece: str) -> tuple[bool, int]:
    """How much a piece says: letters more than signs, then the longer."""
    text = piece.removesuffix(WORD_END)
    return any(map(str.isalnum, text)), len(text)
