"""Compressed weights: palettized, quantized, sparse, and their joint forms.

These kernels get the tensors in their stored element types (half, int8 …) and return the type that the program
declares, with every rounding where coremltools' own decompression has it, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel
from sdbuild.coreml.runtime.packing import look_up_packed, unpack


def _promoted(parameter: Tensor, data: Tensor, axis: int) -> Tensor:
    """A scalar, or a vector along one axis of `data`."""
    if parameter.dim() in (0, data.dim()):
        return parameter
    sizes = [1] * data.dim()
    sizes[axis] = parameter.numel()
    return parameter.reshape(sizes)


def _repeated(parameter: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each entry of the leading dimensions repeated over its block up to `sizes`; ones are left to broadcast."""
    for axis, size in enumerate(sizes):
        if parameter.shape[axis] not in (1, size):
            if size % parameter.shape[axis]:
                raise RuntimeModelError(
                    f"{parameter.shape[axis]} blocks do not divide axis {axis} of size {size} evenly"
                )
            parameter = parameter.repeat_interleave(size // parameter.shape[axis], dim=axis)
    return parameter


@kernel("constexpr_affine_dequantize")
def affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Scale · (data − zero point), in float32, rounded once to the scale's type."""
    values = quantized_data.float() - _promoted(zero_point.float(), quantized_data, axis)
    return (values * _promoted(scale.float(), quantized_data, axis)).to(scale.dtype)


@kernel("constexpr_cast")
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """Half widened to float32."""
    return source_val.float()


@kernel("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Scale · (data − offset) with both repeated over their blocks, each step in the scale's own type."""
    values = data.to(scale.dtype)
    if offset is not None:
        values = values - _repeated(offset, data.shape).to(torch.promote_types(values.dtype, offset.dtype))
    return values * _repeated(scale, data.shape)


@kernel("constexpr_lut_to_dense")
def lut_to_dense(
    indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    """Table entries by index.

    In iOS 16's encoding `indices` is a flat run of packed bits, `lut` one table, and `shape` the result's. From iOS 18
    on `indices` has the result's shape (its vector axis divided by the vectors' length), and `lut` a table for each
    block: [blocks…, entries, vector length].
    """
    if shape is not None:
        return look_up_packed(indices, lut, prod(shape)).reshape(shape)
    vector_length = lut.shape[-1]
    if vector_length == 1:
        return _look_up_blocks(indices, lut.squeeze(-1))
    if vector_axis is None:
        raise RuntimeModelError("a table of vectors needs a vector_axis")
    axis = vector_axis % indices.dim()
    parts = [_look_up_blocks(indices, lut[..., element]) for element in range(vector_length)]
    return torch.stack(parts, dim=axis + 1).flatten(axis, axis + 1)


def _look_up_blocks(indices: Tensor, tables: Tensor) -> Tensor:
    """Entries of scalar tables [blocks…, entries], one table for each block of `indices`."""
    entries = tables.shape[-1]
    blocks = tables.shape[:-1]
    if prod(blocks) == 1:
        return tables.reshape(-1).index_select(0, indices.reshape(-1).int()).reshape(indices.shape)
    first = torch.arange(prod(blocks), dtype=torch.int32).mul_(entries).reshape(blocks)
    rows = _repeated(first, indices.shape) + indices.int()
    return tables.reshape(-1).index_select(0, rows.reshape(-1)).reshape(indices.shape)


@kernel("constexpr_sparse_to_dense")
def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None) -> Tensor:
    """Stored values where the mask has ones, zeros elsewhere; iOS 16's mask is a flat run of packed bits."""
    if shape is not None:
        mask = unpack(mask, 1, prod(shape)).reshape(shape)
    result = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    return result.masked_scatter_(mask.bool(), nonzero_data)


@kernel("constexpr_lut_to_sparse")
def lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the values of a sparse tensor whose stored values are table indices."""
    indices = _dense(indices_nonzero_data, indices_mask)
    values = lut_to_dense(indices, lut, None, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], dim=vector_axis)
    assert isinstance(values, Tensor)
    return mask, values[mask.bool()]


@kernel("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the values of a sparse tensor whose stored values are quantized."""
    values = blockwise_shift_scale(_dense(nonzero_data, data_mask), scale, offset)
    assert isinstance(values, Tensor)
    return data_mask, values[data_mask.bool()]


def _dense(nonzero_data: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=nonzero_data.dtype).masked_scatter_(mask.bool(), nonzero_data)
