"""Prompts as the Swift package reads them: byte pairs between spaces for CLIP, a unigram model for T5.

Sources: BPETokenizer.swift, TextEncoder.swift, TextEncoderXL.swift and TextEncoderT5.swift of
apple/ml-stable-diffusion at e12202c.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np

from sdbuild.bundle.byte_pairs import WORD_END, BytePairs
from sdbuild.bundle.swift_strings import canonical
from sdbuild.bundle.tokenizer import END, PADDING, START
from sdbuild.interface.swift.files import MERGES, T5_TOKENIZER, VOCABULARY
from sdbuild.pipeline.clients.reading import MaskedTokens, Tokens, require, row
from sdbuild.pipeline.clients.swift.t5 import T5Tokenizer
from sdbuild.pipeline.inversions import Inversions, expand

_PADDED = {"TextEncoder2": PADDING}
"""The encoder that is not padded with the end of the text, whatever the checkpoint's tokenizer says."""


class SwiftReader:
    """Reads prompts with a bundle's files.

    Args:
        resources: the folder with the files.
        inversions: the textual inversions that `bundle.json` lists; those of several vectors are written out, as an app
            does that follows it.
    """

    def __init__(self, resources: Path, inversions: Inversions = ()) -> None:
        require(resources, (VOCABULARY, MERGES), "the recipe needs text_encoder among its components")
        vocabulary = json.loads((resources / VOCABULARY).read_bytes())
        self._ids = {canonical(token): number for token, number in vocabulary.items()}
        self._pairs = BytePairs((resources / MERGES).read_text(encoding="utf-8"))
        self._inversions = inversions
        self._resources = resources

    def clip(self, text: str, length: int, encoder: str) -> Tokens:
        """A text for one of CLIP's encoders.

        A text that is too long is cut after `length` tokens and loses its end. What the vocabulary does not have is
        read as the end of the text, wherever it stands.
        """
        words = self._pairs.encode(expand(text, self._inversions))
        tokens = [START, *words, END]
        tokens += [_PADDED.get(encoder, END)] * (length - len(tokens))
        unknown = self._ids.get(END, 0)
        ids = [self._ids.get(token, unknown) for token in tokens[:length]]
        return Tokens(row(ids), (*self._remarks(words, length, encoder),))

    def _remarks(self, words: list[str], length: int, encoder: str) -> list[str]:
        found = []
        if len(words) > length - 2:
            lost = "".join(words[length - 1 :]).replace(WORD_END, " ").strip()
            beside = f": {lost!r}, and" if lost else ":"
            found.append(
                f"{encoder} takes {length} tokens; this end of the text was left out{beside} the token that ends it"
            )
        if unknown := {word.removesuffix(WORD_END) for word in words if word not in self._ids}:
            listed = " ".join(sorted(map(repr, unknown)))
            found.append(f"the vocabulary has no {listed}; the Swift package reads each of them as the end of the text")
        return found

    def t5(self, text: str, length: int) -> MaskedTokens:
        """A text for T5: cut before its end, padded, with a mask on the padding and never on the first token."""
        tokenizer = self._t5
        pieces = tokenizer.tokenize(text)
        kept = [tokenizer.id_of(piece) for piece in pieces][: length - 1]
        ids = np.array([*kept, tokenizer.end, *[tokenizer.padding] * (length - 1 - len(kept))])
        mask = np.where(ids == tokenizer.padding, tokenizer.end, tokenizer.padding).astype(np.float32)
        mask[0] = tokenizer.padding
        lost = "".join(pieces[length - 1 :]).replace("▁", " ").strip()
        remarks = (f"TextEncoderT5 takes {length} tokens; this end of the text was left out: {lost!r}",) if lost else ()
        return MaskedTokens(row(ids.tolist()), mask[None], remarks)

    @cached_property
    def _t5(self) -> T5Tokenizer:
        require(self._resources, T5_TOKENIZER, "TextEncoderT5 needs them; build the bundle again")
        configuration, whole = (json.loads((self._resources / name).read_bytes()) for name in T5_TOKENIZER)
        return T5Tokenizer(whole, configuration)
