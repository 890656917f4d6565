"""Tensors of a GGUF file, read with the `gguf` package of llama.cpp, whose format it is.

Such files hold one network's weights in small blocks with scales of their own; programs write diffusion models in them
too. Each tensor is widened to single precision when it is read, as ComfyUI-GGUF and stable-diffusion.cpp do. The first
says the shape of tensors that it flattened (`comfy.gguf.orig_shape.NAME`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.checkpoint import StoredTensor
from sdbuild.models.errors import ModelError

_PLAIN = {"F16": "float16", "F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64"}
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


def read_gguf(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, StoredTensor]:
    """Names, shapes, types and mapped elements of the tensors whose names start with a prefix.

    Raises:
        ModelError: the package is not installed, the file is damaged, or a tensor is of a kind that it cannot widen.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError(f"{path}: GGUF files are read with the package `gguf`: pip install 'sdbuild[gguf]'") from error
    try:
        reader = GGUFReader(path)
        return {
            tensor.name: _stored(path, tensor, _shape(reader, tensor))
            for tensor in reader.tensors
            if tensor.name.startswith(prefixes)
        }
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelError(f"{path}: cannot be read as GGUF ({error}). Download it again.") from error


def _shape(reader: Any, tensor: Any) -> tuple[int, ...]:
    """The shape in the order of PyTorch; GGUF counts dimensions from the innermost."""
    field = reader.get_field(_ORIGINAL_SHAPE + tensor.name)
    if field is not None:
        return tuple(int(field.parts[index][0]) for index in field.data)
    return tuple(int(size) for size in reversed(tensor.shape))


def _stored(path: Path, tensor: Any, shape: tuple[int, ...]) -> StoredTensor:
    kind = tensor.tensor_type.name
    if kind in _PLAIN:
        values = np.asarray(tensor.data)
        if values.size != prod(shape):
            raise ModelError(f"{path}: tensor {tensor.name} has {values.size} numbers and the shape {shape}.")
        return StoredTensor(tensor.name, shape, _PLAIN[kind], values.reshape(shape))
    return StoredTensor(tensor.name, shape, "float32", np.asarray(tensor.data), True, _widen(path, tensor, shape))


def _widen(path: Path, tensor: Any, shape: tuple[int, ...]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    from gguf.quants import dequantize

    def widen(raw: NDArray[Any]) -> NDArray[Any]:
        try:
            return np.asarray(dequantize(raw, tensor.tensor_type), np.float32).reshape(shape)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{path}: tensor {tensor.name} is stored as {tensor.tensor_type.name} ({error})."
            ) from error

    return widen
