"""What a file of `torch.save` holds, in the form of a safetensors header; no weight is read where it can be mapped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdbuild.checkpoints.header import Header, TensorHeader
from sdbuild.checkpoints.markers import MARKERS

_SCHEDULE = "alphas_cumprod"


def pickle_header(path: Path) -> Header:
    """Names, shapes and types of a state dictionary's tensors, and the numbers of its markers.

    Raises:
        ModelError: the file is damaged, or holds what could run code.
    """
    import torch

    from sdbuild.checkpoints.checkpoint import unpickle

    types = {
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float32: "F32",
        torch.float64: "F64",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
    }
    state, _ = unpickle(path)
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {"": state}
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    small = {name: tensors[name] for name in (*MARKERS, _SCHEDULE) if name in tensors}
    return Header(
        {
            name: TensorHeader(tuple(value.shape), types.get(value.dtype, str(value.dtype)))
            for name, value in tensors.items()
        },
        numbers={name: tuple(value.double().flatten().tolist()) for name, value in small.items()},
    )
