"""Normalisations. Statistics are computed in float32 over the unrounded intermediate values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.kernels.registry import kernel


@kernel("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalisation by given statistics, a value for each channel."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@kernel("instance_norm")
def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Normalisation of each channel of each sample by its own statistics over the spatial dimensions."""
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@kernel("layer_norm")
def layer_norm(
    x: Tensor,
    axes: list[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalisation over any set of axes; gamma and beta have those axes' sizes."""
    rank = x.dim()
    positive = sorted(axis % rank for axis in (range(rank) if axes is None else axes))
    if positive == list(range(rank - len(positive), rank)):
        return functional.layer_norm(x, [x.shape[axis] for axis in positive], gamma, beta, epsilon)
    # torch's var_mean is nine times slower than this over a dimension that is not the last.
    result = x - torch.mean(x, dim=positive, keepdim=True)
    result.mul_(torch.rsqrt(torch.mean(torch.square(result), dim=positive, keepdim=True) + epsilon))
    broadcast = [x.shape[axis] if axis in positive else 1 for axis in range(rank)]
    if gamma is not None:
        result.mul_(gamma.reshape(broadcast))
    return result if beta is None else result.add_(beta.reshape(broadcast))


@kernel("l2_norm")
def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Division by the Euclidean length of the last three dimensions together."""
    return x * torch.rsqrt(torch.sum(torch.square(x), dim=(-3, -2, -1), keepdim=True) + epsilon)


@kernel("local_response_norm")
def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Division by a power of the squares of neighbouring channels (Krizhevsky et al., 2012)."""
    return functional.local_response_norm(x, size, alpha=alpha, beta=beta, k=k)
