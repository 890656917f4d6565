"""Gathering and scattering by computed indices.

Up to iOS 16 a negative index counts from the end; from iOS 17 on it is out of bounds, and what an index out of bounds
does is undefined unless `validate_indices` asks for an error. The runtime counts negative indices from the end wherever
they are not refused, and reports an index that lies outside of the data in every case.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel


def _positions(indices: Tensor, size: int | Tensor, validate: bool) -> Tensor:
    """`indices` as int64, counted from the start; `size` broadcasts against them."""
    positions = indices.long()
    wrapped = positions if validate else torch.where(positions < 0, positions + size, positions)
    if bool(((wrapped < 0) | (wrapped >= size)).any()):
        raise RuntimeModelError(
            f"an index lies outside of the data: indices from {int(positions.min())} to {int(positions.max())}, "
            f"size {size if isinstance(size, int) else size.tolist()}"
        )
    return wrapped


@kernel("gather", exact=True, stored=True)
def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Slices of `x` along an axis; the leading `batch_dims` dimensions of both go together."""
    axis %= x.dim()
    positions = _positions(indices, x.shape[axis], validate_indices)
    if batch_dims == 0:
        picked = x.index_select(axis, positions.reshape(-1))
        return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    batches = prod(x.shape[:batch_dims])
    data = x.reshape(batches, *x.shape[batch_dims:])
    lists = positions.reshape(batches, -1)
    picked = torch.stack([data[b].index_select(axis - batch_dims, lists[b]) for b in range(batches)])
    return picked.reshape(x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1 :])


@kernel("gather_along_axis", exact=True)
def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """For each index, the value of `x` at that position of the axis and the index's own place in the others."""
    return torch.gather(x, axis, _positions(indices, x.shape[axis], validate_indices))


def _flat_rows(indices: Tensor, sizes: torch.Size, validate: bool) -> Tensor:
    """Row numbers in data flattened over its first dimensions, for coordinates in `indices`' last dimension."""
    positions = _positions(indices, torch.tensor(sizes), validate)
    strides = torch.tensor([prod(sizes[index + 1 :]) for index in range(len(sizes))])
    return (positions * strides).sum(-1)


@kernel("gather_nd", exact=True)
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Slices of `x` at the coordinates in the last dimension of `indices`."""
    depth = indices.shape[-1]
    if batch_dims:
        batches = prod(x.shape[:batch_dims])
        data = x.reshape(batches, *x.shape[batch_dims:])
        lists = indices.reshape(batches, *indices.shape[batch_dims:])
        pieces = [gather_nd(data[b], lists[b], 0, validate_indices) for b in range(batches)]
        stacked = torch.stack([piece for piece in pieces if isinstance(piece, Tensor)])
        return stacked.reshape(indices.shape[:-1] + x.shape[batch_dims + depth :])
    rows = _flat_rows(indices, x.shape[:depth], validate_indices)
    flat = x.reshape(prod(x.shape[:depth]), -1)
    return flat.index_select(0, rows.reshape(-1)).reshape(indices.shape[:-1] + x.shape[depth:])


def _scatter(data: Tensor, positions: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    """`data` with `updates` (of the indices' shape) combined in along an axis."""
    if mode == "update":
        return data.scatter(axis, positions, updates)
    if mode == "sub":
        return data.scatter_reduce(axis, positions, -updates, "sum")
    if mode == "div":
        return data / torch.ones_like(data).scatter_reduce(axis, positions, updates, "prod")
    reduction = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.get(mode)
    if reduction is None:
        raise RuntimeModelError(f"scatter has no mode {mode!r}")
    return data.scatter_reduce(axis, positions, updates, reduction)


@kernel("scatter_along_axis")
def scatter_along_axis(
    data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """The inverse of `gather_along_axis`: values combined into a copy of `data`."""
    return _scatter(data, _positions(indices, data.shape[axis], validate_indices), updates, axis, mode)


@kernel("scatter")
def scatter(
    data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """Slices combined into a copy of `data` along an axis."""
    axis %= data.dim()
    positions = _positions(indices, data.shape[axis], validate_indices).reshape(-1)
    values = updates.reshape(*data.shape[:axis], positions.numel(), *data.shape[axis + 1 :])
    spread = positions.reshape((-1,) + (1,) * (data.dim() - axis - 1)).expand(values.shape)
    return _scatter(data, spread, values, axis, mode)


@kernel("scatter_nd")
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """Slices combined into a copy of `data` at the coordinates in the last dimension of `indices`."""
    depth = indices.shape[-1]
    rows = _flat_rows(indices, data.shape[:depth], validate_indices).reshape(-1, 1)
    flat = data.reshape(prod(data.shape[:depth]), -1)
    values = updates.reshape(rows.shape[0], flat.shape[1])
    return _scatter(flat, rows.expand(values.shape), values, 0, mode).reshape(data.shape)
