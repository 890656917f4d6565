"""Matrix products, einsum and attention. Half-precision operands are accumulated in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sdbuild.coreml.runtime.kernels.registry import kernel


@kernel("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Product with a matrix of shape [outputs, inputs] over the last dimension, plus a bias."""
    return functional.linear(x, weight, bias)


@kernel("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Matrix product of the last two dimensions, the others broadcast as NumPy does."""
    left = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    right = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    return torch.matmul(left, right)


@kernel("einsum")
def einsum(values: list[Tensor], equation: str) -> Tensor:
    """``nchw,nwhu->nchu`` or ``chw,whr->chr`` under any letters: a matrix product for each n and h."""
    x, y = values
    return torch.matmul(x.transpose(-2, -3), y.transpose(-2, -3)).transpose(-2, -3)


@kernel("scaled_dot_product_attention")
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(query · keyᵀ / √E + mask) · value; a boolean mask says which elements take part."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
