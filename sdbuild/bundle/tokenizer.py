"""`vocab.json` and `merges.txt` of a bundle, from the files of a checkpoint's own CLIP tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdbuild.bundle.errors import BundleError
from sdbuild.documents import LONGEST_JSON, parse_json, read_bytes, read_json
from sdbuild.interface.swift.files import MERGES, VOCABULARY

START, END, PADDING = "<|startoftext|>", "<|endoftext|>", "!"
"""The tokens that the Swift package looks up by name."""

INVERSIONS = "textual_inversions.json"
"""Beside a tokenizer with textual inversions: what each new entry is."""

_WHOLE = "tokenizer.json"
_HEADER = "#version: 0.2"


def write_tokenizer(source: Path, resources: Path) -> None:
    """Write both files to `resources`.

    Raises:
        BundleError: the tokenizer's files are missing or are no byte-pair encoding.
    """
    for name, text in zip((VOCABULARY, MERGES), read_tokenizer(source), strict=True):
        (resources / name).write_text(text, encoding="utf-8", newline="\n")


def read_tokenizer(source: Path) -> tuple[str, str]:
    """The texts of both files, each merge on a line that ends: the Swift package drops what follows the last newline.

    A checkpoint that has only the newer `tokenizer.json` holds the same vocabulary and merges in it.

    Raises:
        BundleError: the tokenizer's files are missing or are no byte-pair encoding.
    """
    try:
        if (source / VOCABULARY).is_file() and (source / MERGES).is_file():
            vocabulary, merges = (_text(source / name) for name in (VOCABULARY, MERGES))
            parse_json(vocabulary.encode(), unique=True)
        else:
            vocabulary, merges = _from_whole(read_json(source / _WHOLE))
    except FileNotFoundError as error:
        raise BundleError(
            f"{source}: the tokenizer has neither vocab.json and merges.txt nor tokenizer.json"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{source}: the tokenizer is no byte-pair encoding ({error!r})") from error
    return vocabulary, "".join(f"{line}\n" for line in merges.split("\n") if line.strip())


def _text(path: Path) -> str:
    """A file's text as the tokenizers library reads it: lines may end as on Windows, and no mark stands before them."""
    text = read_bytes(path, LONGEST_JSON).decode("utf-8").replace("\r\n", "\n")
    if text.startswith("\ufeff"):
        raise ValueError(f"{path.name} begins with a byte order mark, which its own library does not read")
    return text


def padding_token(source: Path) -> str:
    """The token that the checkpoint's own tokenizer pads with; the end of the text where it does not say."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = read_json(source / name).get("pad_token")
        except (OSError, ValueError, AttributeError):
            continue
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return END


def _from_whole(document: Any) -> tuple[str, str]:
    model = document["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']}")
    added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    tokens: dict[str, int] = {**model["vocab"], **added}
    vocabulary = dict(sorted(tokens.items(), key=lambda item: item[1]))
    return json.dumps(vocabulary, ensure_ascii=False) + "\n", "\n".join([_HEADER, *_pairs(model["merges"])])


def _pairs(merges: Iterable[str | list[str]]) -> Iterable[str]:
    """Merges are `"a b"` in older files and `["a", "b"]` in newer ones."""
    return (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
