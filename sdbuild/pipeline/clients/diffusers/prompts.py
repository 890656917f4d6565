"""Prompts as diffusers' pipelines read them: CLIP's own tokenizer with its padding, T5 without a mask."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.bundle.byte_pairs import WORD_END
from sdbuild.bundle.tokenizer import END, PADDING, START
from sdbuild.interface.swift.files import MERGES, T5_TOKENIZER, VOCABULARY
from sdbuild.pipeline.clients.reading import MaskedTokens, Tokens, require, row
from sdbuild.pipeline.inversions import Inversions, expand, split

_T5_PADDING, _T5_END = 0, 1


class DiffusersReader:
    """Reads prompts with a bundle's files.

    Args:
        resources: the folder with the files.
        padding: the token that the checkpoint's own tokenizer pads with; SDXL's second one pads with `!`.
        inversions: the textual inversions that `bundle.json` lists, whose tokens CLIP's own rules would cut apart;
            those of several vectors are written out.
    """

    def __init__(self, resources: Path, padding: str = END, inversions: Inversions = ()) -> None:
        require(resources, (VOCABULARY, MERGES), "the recipe needs text_encoder among its components")
        from transformers import CLIPTokenizer

        self._resources = resources
        self._padding = padding
        self._inversions = inversions
        self._tokenizer = CLIPTokenizer(vocab=str(resources / VOCABULARY), merges=str(resources / MERGES))

    def clip(self, text: str, length: int, encoder: str) -> Tokens:
        """A text for one of CLIP's encoders, cut so that its end stays."""
        words = [
            number for part in split(expand(text, self._inversions), self._inversions) for number in self._ids(*part)
        ]
        kept, lost = words[: length - 2], words[length - 2 :]
        padding = PADDING if encoder == "TextEncoder2" else self._padding
        start, end, fill = (self._tokenizer.convert_tokens_to_ids(token) for token in (START, END, padding))
        ids = [start, *kept, end]
        return Tokens(row(ids + [fill] * (length - len(ids))), _cut(encoder, length, self._tokenizer, lost))

    def t5(self, text: str, length: int) -> MaskedTokens:
        """A text for T5, cut so that its end stays; T5 looks at the padding too."""
        words = self._t5.encode(text, add_special_tokens=False).ids
        kept, lost = words[: length - 1], words[length - 1 :]
        ids = [*kept, _T5_END, *[_T5_PADDING] * (length - 1 - len(kept))]
        remarks = _cut("TextEncoderT5", length, self._t5, lost)
        return MaskedTokens(row(ids), np.zeros((1, length), np.float32), remarks)

    def _ids(self, text: str, is_new_token: bool) -> list[int]:
        if is_new_token:
            return [self._tokenizer.convert_tokens_to_ids(text.lower() + WORD_END)]
        found: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return found

    @cached_property
    def _t5(self) -> Any:
        require(self._resources, T5_TOKENIZER, "TextEncoderT5 needs them; build the bundle again")
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._resources / "tokenizer.json"))


def _cut(encoder: str, length: int, tokenizer: Any, lost: list[int]) -> tuple[str, ...]:
    if not lost:
        return ()
    return (f"{encoder} takes {length} tokens; this end of the text was left out: {tokenizer.decode(lost)!r}",)
