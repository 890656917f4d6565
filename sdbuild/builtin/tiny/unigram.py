"""A small but real T5 tokenizer: words and characters with scores, as Hugging Face's `tokenizer.json` holds them.

The model is the unigram language model of Kudo 2018: of all ways to cut a text, the one with the highest sum of scores.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdbuild.builtin.tiny.tokenizer import TEXT

VOCABULARY_SIZE = 224

_SPACE = "▁"
_SPECIAL = ("<pad>", "</s>", "<unk>")
# Any cut into words beats one into characters. Powers of two, so that the numbers are written alike everywhere.
_WORD, _CHARACTER, _STEP = -4.0, -16.0, 1 / 64


def vocabulary() -> list[tuple[str, float]]:
    """Pieces and scores by id: special tokens, ASCII's characters, then the most frequent words."""
    pieces = [(token, 0.0) for token in _SPECIAL]
    pieces += [(character, _CHARACTER) for character in (_SPACE, *map(chr, range(ord("!"), ord("~") + 1)))]
    counted = Counter(_SPACE + word for word in TEXT.replace(",", " ").split())
    words = sorted(counted, key=lambda word: (-counted[word], word))[: VOCABULARY_SIZE - len(pieces)]
    return pieces + [(word, _WORD - _STEP * rank) for rank, word in enumerate(words)]


def files() -> dict[str, dict[str, Any]]:
    """The two files that the Swift package and transformers read, by name."""
    added = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        | {"special": True}
        for index, token in enumerate(_SPECIAL)
    ]
    metaspace = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [list(piece) for piece in vocabulary()]}
        | {"byte_fallback": False},
    }
    config = {
        "clean_up_tokenization_spaces": True,
        "eos_token": "</s>",
        "extra_ids": 0,
        "additional_special_tokens": [],
        "model_max_length": 512,
        "pad_token": "<pad>",
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    return {"tokenizer.json": whole, "tokenizer_config.json": config}
