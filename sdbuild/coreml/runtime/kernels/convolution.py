"""Convolutions, transposed convolutions and pooling in one, two and three spatial dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_MAX_POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE_POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}

Padding = list[tuple[int, int]]


def _padding(
    pad_type: str, pad: list[int] | None, sizes: Sequence[int], kernel_sizes: Sequence[int], strides: Sequence[int]
) -> Padding:
    """Elements before and after each spatial dimension; `kernel_sizes` include the dilation."""
    if pad_type == "valid" or (pad_type == "custom" and pad is None):
        return [(0, 0)] * len(sizes)
    if pad_type == "custom" and pad is not None:
        return [(pad[2 * index], pad[2 * index + 1]) for index in range(len(sizes))]
    if pad_type not in ("same", "same_lower"):
        raise RuntimeModelError(f"there is no padding type {pad_type!r}")
    result = []
    for size, kernel_size, stride in zip(sizes, kernel_sizes, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + kernel_size - size)
        smaller, larger = total // 2, total - total // 2
        result.append((smaller, larger) if pad_type == "same" else (larger, smaller))
    return result


def _pad(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    """`x` with elements added around its spatial dimensions."""
    return functional.pad(x, [amount for before_after in reversed(padding) for amount in before_after], value=value)


@kernel("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of [n, C_in, spatial…] with [C_out, C_in / groups, kernel…]."""
    spatial = x.dim() - 2
    strides = strides or [1] * spatial
    dilations = dilations or [1] * spatial
    kernel_sizes = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    padding = _padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    if prod(weight.shape[2:]) == prod(strides) == groups == 1 and not any(map(any, padding)):
        return _pointwise(x, weight, bias)
    if any(before != after for before, after in padding):
        x, padding = _pad(x, padding), [(0, 0)] * spatial
    symmetric = [before for before, _ in padding]
    return _CONVOLUTIONS[spatial](x, weight, bias, strides, symmetric, dilations, groups)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution by a kernel of one element: a matrix product, up to three times faster than torch's convolution."""
    samples, channels = x.shape[:2]
    pixels = x.reshape(samples, channels, -1)
    matrix = weight.reshape(weight.shape[:2]).expand(samples, -1, -1)
    product = torch.bmm(matrix, pixels) if bias is None else torch.baddbmm(bias.reshape(1, -1, 1), matrix, pixels)
    return product.reshape(samples, weight.shape[0], *x.shape[2:])


@kernel("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """The transpose of `conv`: the uncropped result, from which the padding is cut away."""
    spatial = x.dim() - 2
    strides = strides or [1] * spatial
    dilations = dilations or [1] * spatial
    result = _TRANSPOSED[spatial](x, weight, None, strides, 0, 0, groups, dilations)
    full = result.shape[2:]
    if output_shape is not None:
        wanted = output_shape[2:]
    elif pad_type in ("same", "same_lower"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    elif pad_type == "custom" and pad is not None:
        wanted = [size - pad[2 * index] - pad[2 * index + 1] for index, size in enumerate(full)]
    else:
        wanted = list(full)
    for index, (size, target) in enumerate(zip(full, wanted, strict=True)):
        surplus = max(0, size - target)
        before = surplus // 2 if pad_type == "same" else surplus - surplus // 2 if pad_type == "same_lower" else 0
        if pad_type == "custom" and pad is not None:
            before = pad[2 * index]
        result = result.narrow(index + 2, before, min(target, size - before))
        if target > size - before:
            missing = [(0, 0)] * spatial
            missing[index] = (0, target - (size - before))
            result = _pad(result, missing)
    return result.clone() if bias is None else result + bias.reshape((1, -1) + (1,) * spatial)


@kernel("max_pool")
def max_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str = "valid",
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window; padding never wins."""
    strides = strides or [1] * len(kernel_sizes)
    padding = _padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    pool = _MAX_POOLS[len(kernel_sizes)]
    if ceil_mode:
        return pool(x, kernel_sizes, strides, [before for before, _ in padding], ceil_mode=True)
    return pool(_pad(x, padding, float("-inf")), kernel_sizes, strides)


@kernel("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str = "valid",
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window; padding counts as zeros unless it is excluded."""
    strides = strides or [1] * len(kernel_sizes)
    padding = _padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    pool = _AVERAGE_POOLS[len(kernel_sizes)]
    if ceil_mode:
        symmetric = [before for before, _ in padding]
        return pool(x, kernel_sizes, strides, symmetric, True, not exclude_padding_from_average)
    means = pool(_pad(x, padding), kernel_sizes, strides)
    if not exclude_padding_from_average or not any(map(any, padding)):
        return means
    inside = pool(_pad(torch.ones_like(x[:1, :1]), padding), kernel_sizes, strides)
    return means / inside


@kernel("l2_pool")
def l2_pool(
    x: Tensor,
    kernel_sizes: list[int],
    pad_type: str = "valid",
    strides: list[int] | None = None,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The Euclidean length of each window."""
    means = avg_pool(torch.square(x), kernel_sizes, pad_type, strides, pad, False, ceil_mode)
    assert isinstance(means, Tensor)
    return torch.sqrt(means * prod(kernel_sizes))


@kernel("sliding_windows", exact=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """All windows along an axis; the new dimension stands right behind it."""
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)
