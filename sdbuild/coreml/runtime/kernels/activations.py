"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels.registry import kernel


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """A vector of one value a channel, broadcast along the second dimension of `x`."""
    return parameter.reshape((1, -1) + (1,) * (x.dim() - 2))


@kernel("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@kernel("relu6")
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return torch.clamp(x, 0, 6)


@kernel("clamped_relu")
def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, x) where x is not negative, else min(beta, alpha x)."""
    return torch.clamp(torch.where(x >= 0, x, x * alpha), max=beta)


@kernel("thresholded_relu")
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """Zero below alpha, x from there on."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@kernel("leaky_relu")
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """Alpha x for negative values."""
    return functional.leaky_relu(x, alpha)


@kernel("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Alpha x for negative values, with an alpha for each channel."""
    return torch.where(x > 0, x, x * _per_channel(alpha, x))


@kernel("elu")
def elu(x: Tensor, alpha: float) -> Tensor:
    """Alpha (e^x − 1) for negative values."""
    return torch.where(x > 0, x, alpha * torch.expm1(x))


@kernel("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """The Gaussian error linear unit (Hendrycks and Gimpel, 2016), exact or by one of its two approximations."""
    if mode == "EXACT":
        return functional.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return functional.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise RuntimeModelError(f"gelu has no mode {mode!r}")


@kernel("silu")
def silu(x: Tensor) -> Tensor:
    """The input times its sigmoid."""
    return functional.silu(x)


@kernel("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^−x)."""
    return torch.sigmoid(x)


@kernel("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha x + beta within 0 and 1."""
    return torch.clamp(x * alpha + beta, 0, 1)


@kernel("linear_activation")
def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha x + beta."""
    return x * alpha + beta


@kernel("scaled_tanh")
def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha tanh(beta x)."""
    return alpha * torch.tanh(beta * x)


@kernel("softplus")
def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x), computed so that large values do not overflow."""
    return torch.log1p(torch.exp(-torch.abs(x))) + torch.relu(x)


@kernel("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Alpha ln(1 + e^(beta x)), with an alpha and a beta for each channel."""
    scaled = x * _per_channel(beta, x)
    return _per_channel(alpha, x) * (torch.log1p(torch.exp(-torch.abs(scaled))) + torch.relu(scaled))


@kernel("softsign")
def softsign(x: Tensor) -> Tensor:
    """The input divided by one more than its magnitude."""
    return functional.softsign(x)


@kernel("softmax")
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Exponentials along an axis, divided by their sum."""
    return torch.softmax(x, dim=axis)
