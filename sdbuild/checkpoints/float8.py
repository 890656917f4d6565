"""Weights of 8 bits: their two formats, and the scales that programs write beside them.

The formats are those of Micikevicius et al. 2022, FP8 Formats for Deep Learning: E4M3 without infinities (PyTorch's
`float8_e4m3fn`) and E5M2 (`float8_e5m2`), which is the upper half of a half-precision number. Every number of both is
one of half precision. ComfyUI writes a scale beside each weight (`scale_weight`, `weight_scale`) and a marker
(`scaled_fp8`): the weight is their product, in single precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.float8_names import DESCRIPTION, MARKER, SCALES, is_beside
from sdbuild.models.errors import ModelError

if TYPE_CHECKING:
    from sdbuild.checkpoints.checkpoint import StoredTensor

FORMATS = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
"""PyTorch's names of the formats → those of safetensors."""


def _table() -> NDArray[np.float16]:
    """The 256 numbers of E4M3: a sign, four bits of exponent with bias 7, three of mantissa; all ones are no number."""
    codes = np.arange(256)
    exponents, mantissas = codes >> 3 & 15, codes & 7
    values = np.where(exponents == 0, mantissas / 8 * 2.0**-6, (1 + mantissas / 8) * 2.0 ** (exponents - 7.0))
    values = np.where(codes & 127 == 127, np.nan, values)
    signed: NDArray[np.float16] = (np.where(codes & 128, -1, 1) * values).astype(np.float16)
    return signed


_E4M3 = _table()


def decoder(dtype: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Bytes of a format → half-precision numbers."""
    if dtype == "float8_e5m2":
        return lambda raw: (raw.astype(np.uint16) << 8).view(np.float16)
    return lambda raw: _E4M3[raw]


def scaled(tensors: Mapping[str, StoredTensor], label: str) -> dict[str, StoredTensor]:
    """The tensors of a file with scales multiplied into their weights, and without what was beside them.

    Raises:
        ModelError: a scale belongs to no weight of 8 bits, or has a shape that is none of a scale.
    """
    beside = {name: tensor for name, tensor in tensors.items() if is_beside(name)}
    if not any(name.rpartition(".")[2] in (*SCALES, MARKER, DESCRIPTION) for name in beside):
        return dict(tensors)
    scales: dict[str, StoredTensor] = {}
    for name, tensor in beside.items():
        module, _, kind = name.rpartition(".")
        if kind in SCALES:
            weight = f"{module}.weight"
            if weight not in tensors:
                raise ModelError(f"{label}: {name} is the scale of {weight}, which is not there. Download it again.")
            if weight in scales:
                raise ModelError(f"{label}: {weight} has two scales, {scales[weight].name} and {name}.")
            scales[weight] = tensor
        elif kind == DESCRIPTION:
            _check_description(tensor, label)
    return dict(_merged({name: t for name, t in tensors.items() if name not in beside}, scales, label))


def _merged(
    tensors: Mapping[str, StoredTensor], scales: Mapping[str, StoredTensor], label: str
) -> Iterator[tuple[str, StoredTensor]]:
    for name, tensor in tensors.items():
        if (scale := scales.get(name)) is None:
            yield name, tensor
            continue
        factor = np.asarray(scale.read(), np.float32)
        if factor.size not in (1, tensor.shape[0]):
            raise ModelError(
                f"{label}: {scale.name} has {factor.size} numbers; a scale has one, or one for each of the "
                f"{tensor.shape[0]} outputs. Weights in blocks with scales of their own cannot be read."
            )
        factor = factor.reshape(-1, *[1] * (len(tensor.shape) - 1)) if factor.size > 1 else factor.reshape(())
        yield name, _times(tensor, factor)


def _times(tensor: StoredTensor, factor: NDArray[np.float32]) -> StoredTensor:
    decode = tensor.decode

    def product(raw: NDArray[Any]) -> NDArray[Any]:
        values = decode(raw) if decode is not None else raw
        return values.astype(np.float32).reshape(tensor.shape) * factor

    return replace(tensor, dtype="float32", decode=product)


def _check_description(tensor: StoredTensor, label: str) -> None:
    """Refuse what ComfyUI describes as stored in another way than 8-bit floating point."""
    try:
        stated = json.loads(bytes(np.asarray(tensor.raw, np.uint8).reshape(-1)))["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{label}: {tensor.name} describes nothing ({error!r}). Download it again.") from error
    if stated not in FORMATS:
        raise ModelError(f"{label}: {tensor.name} says that weights are {stated}, which cannot be read.")
