"""Operations that make new tensors from sizes, ranges and constants, and quantization of activations."""

from __future__ import annotations

import torch
from torch import Tensor

from sdbuild.coreml.runtime.kernels.registry import kernel
from sdbuild.coreml.runtime.types import STORAGE

_INTEGER_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@kernel("shape", exact=True)
def shape(x: Tensor) -> Tensor:
    """The sizes of all dimensions."""
    return torch.tensor(x.shape, dtype=torch.int32)


@kernel("fill")
def fill(shape: list[int], value: Tensor) -> Tensor:
    """One value everywhere."""
    return value.reshape(()).expand(shape).clone()


@kernel("fill_like")
def fill_like(ref_tensor: Tensor, value: Tensor) -> Tensor:
    """One value in the shape of another tensor."""
    return value.reshape(()).expand(ref_tensor.shape).clone()


@kernel("range_1d")
def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """From start to before end by steps."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@kernel("one_hot")
def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """Along a new axis, `on_value` where the index says and `off_value` elsewhere."""
    positions = torch.arange(one_hot_vector_size)
    hits = (indices.unsqueeze(-1) == positions).movedim(-1, axis)
    on = torch.tensor(1) if on_value is None else on_value
    off = torch.tensor(0) if off_value is None else off_value
    return torch.where(hits, on, off)


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    if parameter.dim() == 0 or axis is None:
        return parameter.float()
    sizes = [1] * x.dim()
    sizes[axis] = parameter.numel()
    return parameter.float().reshape(sizes)


@kernel("quantize")
def quantize(
    input: Tensor,  # noqa: A002 - the operation's own name for it
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """Rounded input / scale plus the zero point, kept within the integer type."""
    values = torch.round(input / _along(scale, input, axis))
    if zero_point is not None:
        values = values + _along(zero_point, input, axis)
    low, high = _INTEGER_RANGES[output_dtype]
    return values.clamp(low, high).to(STORAGE[output_dtype])


@kernel("dequantize")
def dequantize(
    input: Tensor,  # noqa: A002 - the operation's own name for it
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """(input − zero point) × scale."""
    values = input.float()
    if zero_point is not None:
        values = values - _along(zero_point, input, axis)
    return values * _along(scale, input, axis)
