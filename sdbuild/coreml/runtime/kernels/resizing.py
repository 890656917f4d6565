"""Resizing and cropping of the last dimensions (images)."""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel


def _grid(size: int, target: int, mode: str) -> Tensor:
    """The positions in an axis of `size` elements at which `target` samples are taken."""
    index = torch.arange(target, dtype=torch.float64)
    if mode == "DEFAULT":
        points = index * ((size - size / target) / (target - 1)) if target > 1 else index
    elif mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and target > 1):
        points = index * ((size - 1) / (target - 1)) if target > 1 else index
    elif mode == "ALIGN_CORNERS":
        points = torch.full((1,), (size - 1) / 2, dtype=torch.float64)
    elif mode == "OFFSET_CORNERS":
        step = max(1, size - 1) / target
        points = 0.5 * step + index * step
    elif mode == "UNALIGN_CORNERS":
        points = (index + 0.5) * (size / target) - 0.5
    else:
        raise RuntimeModelError(f"there is no sampling mode {mode!r}")
    return points.clamp(0, size - 1)


def _linear_axis(x: Tensor, axis: int, target: int, mode: str) -> Tensor:
    """Linear interpolation along one axis."""
    size = x.shape[axis]
    if size == target and mode != "OFFSET_CORNERS":
        return x
    points = _grid(size, target, mode)
    low = points.floor().long()
    high = (low + 1).clamp(max=size - 1)
    weight = (points - low).to(x.dtype).reshape((-1,) + (1,) * (x.dim() - 1 - axis % x.dim()))
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)


def _linear(x: Tensor, targets: list[int], mode: str) -> Tensor:
    """Linear interpolation of the last dimensions to `targets`."""
    result = x.float()
    for offset, target in enumerate(reversed(targets)):
        result = _linear_axis(result, x.dim() - 1 - offset, target, mode)
    return result.clone() if result is x else result


def _nearest(x: Tensor, targets: list[int]) -> Tensor:
    """The element at floor(index · size / target) along each of the last dimensions."""
    for offset, target in enumerate(reversed(targets)):
        axis = x.dim() - 1 - offset
        size = x.shape[axis]
        if target == size:
            continue
        if target % size == 0:
            x = x.repeat_interleave(target // size, dim=axis)
        else:
            positions = (torch.arange(target, dtype=torch.float64) * (size / target)).floor().long()
            x = x.index_select(axis, positions.clamp(max=size - 1))
    return x


@kernel("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """The last two dimensions grown by factors, each value repeated."""
    height, width = x.shape[-2:]
    targets = [floor(height * scale_factor_height), floor(width * scale_factor_width)]
    if x.dim() == 4 and x.is_floating_point():
        return functional.interpolate(x, size=targets, mode="nearest")
    return _nearest(x, targets)


@kernel("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """The last two dimensions brought to a size, each value repeated or dropped."""
    return _nearest(x, [target_size_height, target_size_width])


@kernel("upsample_bilinear")
def upsample_bilinear(
    x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1, align_corners: bool = True
) -> Tensor:
    """The last two dimensions grown by factors, which are worked out again from the rounded size."""
    targets = [floor(x.shape[-2] * scale_factor_height), floor(x.shape[-1] * scale_factor_width)]
    return _linear(x, targets, "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS")


@kernel("resize_bilinear")
def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """The last two dimensions brought to a size by bilinear interpolation."""
    return _linear(x, [target_size_height, target_size_width], sampling_mode)


@kernel("resize")
def resize(
    x: Tensor,
    shape: list[int],
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last `resized_dims` dimensions brought to the last sizes of `shape`; 0 keeps a size."""
    last = x.shape[x.dim() - resized_dims :]
    wanted = shape[len(shape) - resized_dims :]
    targets = [size if target == 0 else target for size, target in zip(last, wanted, strict=True)]
    if interpolation_mode == "LINEAR":
        return _linear(x, targets, sampling_mode)
    if sampling_mode != "DEFAULT":
        raise RuntimeModelError(
            f"resize: which neighbour is nearest under {sampling_mode} is not documented, so it is not implemented"
        )
    return _nearest(x, targets).clone()


@kernel("crop", exact=True)
def crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    """The last two dimensions with borders cut away."""
    height, width = x.shape[-2:]
    return x[..., crop_height[0] : height - crop_height[1], crop_width[0] : width - crop_width[1]]
