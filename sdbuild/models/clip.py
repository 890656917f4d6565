"""The transformer that CLIP's text and vision towers share (Radford et al. 2021), with the checkpoints' names.

Written here and not taken from transformers, whose attention and masks have several code paths chosen at run time and
whose parameter names changed in version 5. The original remains the reference that parity is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdbuild.models.errors import ModelError


def quick_gelu(hidden: Tensor) -> Tensor:
    """The sigmoid approximation of GELU that OpenAI's checkpoints were trained with."""
    return hidden * torch.sigmoid(1.702 * hidden)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


class CLIPAttention(nn.Module):
    """Self-attention over (B, S, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, D) and a mask to add to (B, heads, S, S) → (B, S, D)."""
        batch, length, width = hidden.shape
        query, key, value = (
            projected.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for projected in (self.q_proj(hidden) * self.scale, self.k_proj(hidden), self.v_proj(hidden))
        )
        scores = torch.matmul(query, key.transpose(2, 3))
        weights = (scores if mask is None else scores + mask).softmax(-1)
        attended: Tensor = self.out_proj(torch.matmul(weights, value).transpose(1, 2).reshape(batch, length, width))
        return attended


class CLIPMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ModelError(
                f"config.json: hidden_act = {activation!r} is not supported; supported: {', '.join(_ACTIVATIONS)}."
            )
        self.activation = _ACTIVATIONS[activation]
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, D) → the same shape."""
        output: Tensor = self.fc2(self.activation(self.fc1(hidden)))
        return output


class CLIPLayer(nn.Module):
    """Attention and a feed-forward network, each normalised before and added after."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.self_attn = CLIPAttention(width, config["num_attention_heads"])
        self.layer_norm1 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = CLIPMLP(width, config["intermediate_size"], config.get("hidden_act", "quick_gelu"))
        self.layer_norm2 = nn.LayerNorm(width, eps=epsilon)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, D) → the same shape."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), mask)
        output: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return output


class CLIPEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CLIPLayer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, hidden: Tensor, mask: Tensor | None = None, before: int = 1) -> tuple[Tensor, Tensor]:
        """(B, S, D) → what goes into the last `before` layers (1: the penultimate state), and what comes out of all."""
        states = [hidden]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states[-1 - before], states[-1]
