"""Reductions over axes. Sums of half-precision values are accumulated in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdbuild.coreml.runtime.kernels.registry import kernel

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, dim=axis, keepdim=keep_dims)
    return x


_REDUCTIONS: dict[str, Reduction] = {
    "reduce_sum": lambda x, axes, keep: torch.sum(x, axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: torch.mean(x.float(), axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: torch.amax(x, axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: torch.amin(x, axes, keepdim=keep),
    "reduce_prod": _product,
    "reduce_l1_norm": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: torch.sqrt(torch.sum(torch.square(x), axes, keepdim=keep)),
    "reduce_sum_square": lambda x, axes, keep: torch.sum(torch.square(x), axes, keepdim=keep),
    "reduce_log_sum": lambda x, axes, keep: torch.log(torch.sum(x, axes, keepdim=keep)),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


def _register(operation: str, reduction: Reduction) -> None:
    @kernel(operation)
    def reduce(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        if x.dim() == 0:
            return reduction(x.reshape(1), [0], False)
        return reduction(x, list(range(x.dim())) if axes is None else axes, keep_dims)


for _operation, _reduction in _REDUCTIONS.items():
    _register(_operation, _reduction)


@kernel("reduce_argmax")
def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the largest value along an axis."""
    return torch.argmax(x, dim=axis, keepdim=keep_dims)


@kernel("reduce_argmin")
def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the smallest value along an axis."""
    return torch.argmin(x, dim=axis, keepdim=keep_dims)


@kernel("cumsum")
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Running sums along an axis; `exclusive` leaves out each element itself, `reverse` starts at the end."""
    values = torch.flip(x, (axis,)) if reverse else x
    sums = torch.cumsum(values, dim=axis)
    if exclusive:
        sums = sums - values
    return torch.flip(sums, (axis,)) if reverse else sums


@kernel("argsort")
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """The order that sorts an axis, largest first unless `ascending`; equal values keep their order."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


@kernel("topk")
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, ...]:
    """The k largest values along an axis (the smallest if `ascending`), in order, and where they stand."""
    indices = torch.argsort(x, dim=axis, descending=not ascending, stable=True)
    indices = indices.narrow(axis, 0, x.shape[axis] if k == -1 else k)
    values = torch.gather(x, axis, indices)
    return (values, indices) if return_indices else values


@kernel("non_zero")
def non_zero(x: Tensor) -> Tensor:
    """The coordinates of all elements that are not zero, one row each."""
    return torch.nonzero(x)
