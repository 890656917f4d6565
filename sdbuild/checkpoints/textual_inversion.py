"""Textual inversions: vectors that were trained to stand for a word, as rows of a text encoder's token embedding.

Read are the files of diffusers and of the Hub (token → one vector or several), those of A1111's trainer as a pickle
(`string_to_param`) or safetensors (`emb_params`), those for SDXL with vectors for both encoders (`clip_l`, `clip_g`),
in one file or in two, and the words in a LoRA's file of OneTrainer (`bundle_emb.…`). Of pickles, tensors and plain
values alone are read.

Source: Gal et al., An Image is Worth One Word, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.checkpoint import (
    FLOATING,
    STORAGE_TYPES,
    StoredTensor,
    read_safetensors,
    stored_tensor,
    unpickle,
)
from sdbuild.checkpoints.lora.names import BUNDLED
from sdbuild.models.errors import ModelError

_BOTH = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_BUNDLED_ONE = "string_to_param.*"
_A1111, _A1111_SAFE = "string_to_param", "emb_params"
# What trainers write where the token's name would be.
_NAMELESS = ("", "*", _A1111_SAFE, *_BOTH.values())
_WIDTHS = {768: "SD 1.x or SDXL's first encoder", 1024: "SD 2.x", 1280: "SDXL's second encoder"}
_TABLE = "embeddings.token_embedding.weight"

Floats = NDArray[np.float64]


class TextualInversion:
    """An embedding's file.

    Attributes:
        name: the token that the file names; None where it names none.

    Args:
        paths: the file; or two, with the vectors for the first and for the second text encoder.
        label: what messages call it.
        token: the word that is asked for, of a LoRA's file that several words travel with; None for the only one.

    Raises:
        ModelError: the file is damaged, of another kind, or holds numbers that are none.
    """

    def __init__(self, paths: Sequence[Path], label: str, token: str | None = None) -> None:
        self.label = label
        name: str | None = None
        halves: list[dict[str, StoredTensor]] = []
        for path in paths:
            name, found = _read_safe(path) if path.suffix == ".safetensors" else _read_pickle(path)
            if any(BUNDLED.fullmatch(each) for each in found):
                name, found = self._bundled(found, token)
            halves.append(found)
        stored = halves[0] if len(halves) == 1 else self._joined(halves)
        self._tensors = self._chosen(stored)
        only = name if name is not None else next(iter(self._tensors))
        self.name = None if only in _NAMELESS else only

    def vectors(self, component: str, encoders: Sequence[str]) -> Floats:
        """The vectors for one text encoder, (count, width).

        Args:
            component: `text_encoder` or `text_encoder_2`.
            encoders: all text encoders that the vectors are for.

        Raises:
            ModelError: the file lacks an encoder's vectors, or has another number of them for each.
        """
        keys = [_BOTH[encoder] for encoder in encoders] if len(encoders) > 1 else self._keys_of_one(component)
        if missing := [key for key in keys if key not in self._tensors]:
            raise ModelError(
                f"{self.label}: has no vectors for {' and '.join(missing)}; it has {', '.join(self._tensors)}. "
                "SDXL has two text encoders: give a file with clip_l and clip_g."
            )
        counts = {key: len(self._tensors[key]) for key in keys}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} for {key}" for key, count in counts.items())
            raise ModelError(f"{self.label}: {said}. Both encoders must have as many vectors. Download it again.")
        return self._tensors[keys[list(encoders).index(component)]]

    def _keys_of_one(self, component: str) -> list[str]:
        """The tensor for a pipeline of one text encoder: SDXL's refiner has the second."""
        if component == "text_encoder" and _BOTH["text_encoder_2"] in self._tensors:
            raise ModelError(
                f"{self.label}: has vectors for clip_g, so it was trained for SDXL. Give one for SD 1 or 2."
            )
        return [_BOTH[component]] if _BOTH[component] in self._tensors else [next(iter(self._tensors))]

    def _joined(self, halves: Sequence[Mapping[str, StoredTensor]]) -> dict[str, StoredTensor]:
        """Both encoders' vectors of two files: by their names, else by their width, of which the second has more."""
        if [len(half) for half in halves] != [1, 1]:
            held = " and ".join(", ".join(half) or "nothing" for half in halves)
            raise ModelError(f"{self.label}: hold {held}. Of two files each holds one encoder's vectors.")
        pairs = [next(iter(half.items())) for half in halves]
        if {key for key, _ in pairs} != {*_BOTH.values()}:
            pairs.sort(key=lambda pair: pair[1].shape[-1])
            if pairs[0][1].shape[-1] == pairs[1][1].shape[-1]:
                raise ModelError(f"{self.label}: both files hold vectors of one width, so they are for one encoder.")
            pairs = [(key, tensor) for key, (_, tensor) in zip(_BOTH.values(), pairs, strict=True)]
        return dict(pairs)

    def _bundled(self, found: Mapping[str, StoredTensor], token: str | None) -> tuple[str, dict[str, StoredTensor]]:
        """The vectors of one of the words that travel with a LoRA."""
        words: dict[str, dict[str, StoredTensor]] = {}
        for name, tensor in found.items():
            if match := BUNDLED.fullmatch(name):
                words.setdefault(match["token"], {})[match["key"]] = tensor
        chosen = next((word for word in words if token is not None and word.lower() == token.lower()), None)
        if chosen is None and len(words) > 1:
            raise ModelError(
                f"{self.label}: holds the words {', '.join(sorted(words))}; say in the recipe which: `token: …`."
            )
        chosen = chosen if chosen is not None else next(iter(words))
        if strange := words[chosen].keys() - {*_BOTH.values(), _BUNDLED_ONE}:
            raise ModelError(
                f"{self.label}: {chosen} has vectors for {', '.join(sorted(strange))}, which cannot be words."
            )
        return chosen, words[chosen]

    def _chosen(self, stored: Mapping[str, StoredTensor]) -> dict[str, Floats]:
        if len(stored) != 1 and (not stored or not {*stored} <= {*_BOTH.values()}):
            listed = ", ".join(sorted(stored)[:4]) or "nothing"
            raise ModelError(f"{self.label}: holds {listed}. A textual inversion holds the vectors of one token.")
        return {key: self._checked(tensor) for key, tensor in stored.items()}

    def _checked(self, tensor: StoredTensor) -> Floats:
        where = f"{self.label}: {tensor.name or 'its tensor'}"
        values = np.atleast_2d(np.asarray(tensor.read(), np.float64))
        if values.ndim != 2 or not values.size or tensor.dtype not in FLOATING:
            raise ModelError(f"{where} has the shape {tensor.shape} and type {tensor.dtype}, and holds no vectors.")
        if not np.isfinite(values).all():
            raise ModelError(f"{where} holds values that are no numbers (NaN or infinite). Download it again.")
        return values


def _read_safe(path: Path) -> tuple[str | None, dict[str, StoredTensor]]:
    return None, read_safetensors(path)


def _read_pickle(path: Path) -> tuple[str | None, dict[str, StoredTensor]]:
    content, mapped = unpickle(path)
    name = None
    if not isinstance(content, Mapping):
        content = {"": content}
    elif isinstance(content.get(_A1111), Mapping):
        name, content = str(content.get("name") or ""), content[_A1111]
    return name, {str(key): stored_tensor(path, str(key), tensor, mapped) for key, tensor in content.items()}


@dataclass(frozen=True)
class GrownTable:
    """A token embedding with further rows; implements `sdbuild.tensors.Weight`.

    Attributes:
        base: the checkpoint's, of which the first `kept` rows are taken.
        kept: how many tokens the tokenizer had.
        added: the further rows.
    """

    base: StoredTensor
    kept: int
    added: Floats = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The stored tensor's name."""
        return self.base.name

    @property
    def shape(self) -> tuple[int, ...]:
        """(tokens, width)."""
        return (self.kept + len(self.added), self.base.shape[1])

    @property
    def dtype(self) -> str:
        """The stored tensor's type; float32 where that is bfloat16, which would round the vectors."""
        return "float32" if self.base.dtype == "bfloat16" else self.base.dtype

    def read(self) -> NDArray[np.generic]:
        """All rows."""
        storage = STORAGE_TYPES[self.dtype]
        return np.concatenate([self.base.read()[: self.kept].astype(storage), self.added.astype(storage)])

    def done(self) -> None:
        """Give the stored tensor's pages back."""
        self.base.done()


def grow(
    tensors: Mapping[str, StoredTensor], kept: int, rows: Sequence[int | tuple[str, Floats]], component: str
) -> dict[str, StoredTensor | GrownTable]:
    """A text encoder's tensors with rows appended to its token embedding.

    Args:
        tensors: the encoder's tensors.
        kept: how many tokens the tokenizer had.
        rows: the id of the row to repeat, or the embedding's label and the vector.
        component: what messages call the encoder.

    Raises:
        ModelError: the tokenizer is another's, or a vector is of another width, or too large for the type.
    """
    (name,) = [name for name in tensors if name.removeprefix("text_model.") == _TABLE] or [""]
    if not name or len(tensors[name].shape) != 2 or tensors[name].shape[0] < kept:
        has = f"{tensors[name].shape}" if name else "none"
        raise ModelError(
            f"{component}: needs a token embedding of {kept} rows, as many as the tokenizer has; has {has}."
        )
    table = tensors[name]
    old = table.read()
    added = np.empty((len(rows), table.shape[1]))
    for index, row in enumerate(rows):
        added[index] = old[row] if isinstance(row, int) else _fitting(row, table, component)
    return {**tensors, name: GrownTable(table, kept, added)}


def _fitting(row: tuple[str, Floats], table: StoredTensor, component: str) -> Floats:
    label, vector = row
    width = table.shape[1]
    if len(vector) != width:
        trained = f", as those for {_WIDTHS[len(vector)]} have" if len(vector) in _WIDTHS else ""
        raise ModelError(
            f"{label}: its vectors have {len(vector)} numbers{trained}; {component}'s have {width}. "
            "The embedding was trained for another family."
        )
    if table.dtype == "float16" and np.abs(vector).max() > np.finfo(np.float16).max:
        raise ModelError(f"{label}: holds a number that float16, the type of {component}'s weights, cannot hold.")
    return vector


def grown_config(config: Mapping[str, Any], size: int, added: int, end: int) -> dict[str, Any]:
    """A text encoder's `config.json` for `size` tokens of which the last `added` are new.

    Old configurations say that texts end at token 2, which transformers takes for the largest id in the text: that
    would be a new token. So the grown one says which token `end` really is.
    """
    changes = {"vocab_size": size, "eos_token_id": end}
    grown = {**config, **changes, "added_tokens": added}
    if isinstance(config.get("text_config"), Mapping):
        grown["text_config"] = {**config["text_config"], **changes}
    return grown
