"""Weights as a safetensors file, written one tensor at a time (the layout is that library's README's, "Format")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.checkpoints.checkpoint import STORAGE_TYPES, StoredTensor
from sdbuild.tensors import Weight

_NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"} | {
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNMENT = 8


def write_safetensors(
    path: Path, tensors: Mapping[str, Weight], progress: Callable[[float, str], None] = lambda _, __: None
) -> None:
    """Write tensors under new names; the same bytes for the same tensors, whatever their order.

    Args:
        path: the file to make.
        tensors: name → tensor; what is stored as bfloat16 stays so.
        progress: called with the share of bytes that is written.
    """
    # Wide types first, so that every tensor is aligned to its own type.
    order = sorted(tensors, key=lambda name: (-STORAGE_TYPES[tensors[name].dtype].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + int(np.prod(tensor.shape)) * STORAGE_TYPES[tensor.dtype].itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            _write(file, tensors[name])
            progress(header[name]["data_offsets"][1] / (end or 1), name)


def _write(file: Any, tensor: Weight) -> None:
    # The raw words: `read` would widen bfloat16.
    values = tensor.raw if isinstance(tensor, StoredTensor) and tensor.decode is None else tensor.read()
    file.write(np.ascontiguousarray(values, STORAGE_TYPES[tensor.dtype]).reshape(-1).view(np.uint8).data)
    tensor.done()
