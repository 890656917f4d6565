"""T5's encoder (Raffel et al. 2020; version 1.1 of Shazeer 2020 with gated units): Stable Diffusion 3's third encoder.

The residual stream of the large models exceeds 65504, which float16 cannot hold. The network does not depend on its
unit: every branch starts with a norm, which divides it out, and ends with a linear layer. So the stream is kept in
units of 64: embeddings and what enters each branch's last layer are divided by 64, a power of two that rounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sdbuild.checkpoints.checkpoint import Checkpoint, DerivedWeight
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.layers import normalise_root_mean_square
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec, Weight

_UNIT = 1 / 64
# Added to the score of a token that is not attended to: float16 holds it and any sum with a real score.
_MASKED = -3e4

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
}

# Parts of a checkpoint's names → parts of ours.
_NAMES = {
    "layer.0.SelfAttention": "attention",
    "layer.0.layer_norm": "attention_norm",
    "layer.1.DenseReluDense": "feed",
    "layer.1.layer_norm": "feed_norm",
}
_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


class Norm(nn.Module):
    """Root mean square normalisation over the last dimension, from the stream's unit to 1."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, D) → the same shape."""
        return normalise_root_mean_square(hidden, -1, self.epsilon, unit=_UNIT) * self.weight


class Attention(nn.Module):
    """Self-attention over (B, S, D) with biases for distances; T5 does not scale its scores."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.q, self.k, self.v = (nn.Linear(width, heads * head_width, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """(B, S, D) and (B, heads, S, S) to add to the scores → (B, S, D) in the stream's unit."""
        batch, length, _ = hidden.shape
        query, key, value = (
            layer(hidden).reshape(batch, length, self.heads, self.head_width).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        weights = (torch.matmul(query, key.transpose(2, 3)) + bias).softmax(-1)
        attended = torch.matmul(weights, value).transpose(1, 2).reshape(batch, length, -1)
        output: Tensor = self.o(attended * _UNIT)
        return output


class FeedForward(nn.Module):
    """Two layers with an activation between them, which a third may gate."""

    wi: nn.Linear
    wi_0: nn.Linear
    wi_1: nn.Linear

    def __init__(self, width: int, inner: int, kind: str) -> None:
        super().__init__()
        self.gated = kind.startswith("gated-")
        # Saved configurations say gated-gelu and mean the approximation.
        activation = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
        if activation not in _ACTIVATIONS:
            raise ModelError(f"config.json: feed_forward_proj = {kind!r} is not supported; known are relu, gated-gelu.")
        self.activation = _ACTIVATIONS[activation]
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            self.add_module(name, nn.Linear(width, inner, bias=False))
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, D) → the same shape, in the stream's unit."""
        if self.gated:
            inner = self.activation(self.wi_0(hidden)) * (self.wi_1(hidden) * _UNIT)
        else:
            inner = self.activation(self.wi(hidden)) * _UNIT
        output: Tensor = self.wo(inner)
        return output


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added after."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = config["d_model"], config["layer_norm_epsilon"]
        self.attention_norm = Norm(width, epsilon)
        self.attention = Attention(width, config["num_heads"], config["d_kv"])
        self.feed_norm = Norm(width, epsilon)
        self.feed = FeedForward(width, config["d_ff"], config["feed_forward_proj"])

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """(B, S, D) → the same shape."""
        hidden = hidden + self.attention(self.attention_norm(hidden), bias)
        output: Tensor = hidden + self.feed(self.feed_norm(hidden))
        return output


class T5Encoder(nn.Module):
    """transformers' `T5EncoderModel` under the Swift package's calling convention."""

    position_bias: Tensor

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(config["vocab_size"], config["d_model"])
        self.register_buffer("position_bias", torch.empty(1, config["num_heads"], length, length))
        self.block = nn.ModuleList(Block(config) for _ in range(config["num_layers"]))
        self.final_layer_norm = Norm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """(1, N) and (1, N), 1 where nobody attends → (1, D, 1, N)."""
        hidden = self.shared(input_ids) * _UNIT
        bias = self.position_bias + attention_mask[:, None, None, :] * _MASKED
        for block in self.block:
            hidden = block(hidden, bias)
        return (self.final_layer_norm(hidden).transpose(1, 2).unsqueeze(2),)


def build_t5(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The encoder of `checkpoint`, which may hold a whole T5.

    The mask is the Swift package's: it feeds 1 for padding and 0 for the text (ml-stable-diffusion, TextEncoderT5; #359
    there shows that its own model needs it so), the opposite of transformers' mask.
    """
    raw = read_config(checkpoint, "T5EncoderModel", "T5ForConditionalGeneration", "T5Model")
    config = _DEFAULTS | {key: value for key, value in raw.items() if value is not None}
    length = arguments.text_sequence_length
    with torch.device("meta"):
        module = T5Encoder(config, length).eval().requires_grad_(False)
    stored = Checkpoint.open(checkpoint)
    width = config["d_model"]
    return ComponentModel(
        component=component,
        module=module,
        inputs=(
            TensorSpec("input_ids", (1, length), "int32", "Token ids, padded with 0 to the length."),
            TensorSpec(
                "attention_mask",
                (1, length),
                "float16",
                "1 for padding, which is not attended to; else 0.",
            ),
        ),
        outputs=(
            TensorSpec(
                "encoder_hidden_states",
                (1, width, 1, length),
                "float32",
                "Hidden states after the last layer, width before tokens.",
            ),
        ),
        weights=map_weights(module, stored, lambda name: _rename(name, stored), _given(stored, config, length)),
    )


def buckets(length: int, count: int, largest: int) -> NDArray[np.int64]:
    """The bucket of each distance between a query and a key, (length, length).

    Half of the buckets are for keys after the query. Of each half, the first half holds one distance a bucket; the rest
    grows logarithmically up to `largest` and beyond (Raffel et al. 2020, 2.1, and the released code).
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = count // 2
    exact = half // 2
    away = np.abs(distance)
    # In float32 as transformers computes it: the borders of the buckets are its.
    grown = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(largest / exact))
    far = np.minimum(exact + (grown * np.float32(half - exact)).astype(np.int64), half - 1)
    found: NDArray[np.int64] = np.where(distance > 0, half, 0) + np.where(away < exact, away, far)
    return found


def _given(stored: Checkpoint, config: Mapping[str, Any], length: int) -> dict[str, Weight]:
    """The biases of all distances, from the table of the first block, which serves all."""
    heads, count = config["num_heads"], config["relative_attention_num_buckets"]
    chosen = buckets(length, count, config["relative_attention_max_distance"])
    name = next((name for name in stored if name.endswith(_BIAS) and not name.startswith("decoder.")), None)
    if name is None or stored[name].shape != (count, heads):
        return {}
    return {
        "position_bias": DerivedWeight(
            stored[name], (1, heads, length, length), lambda table: table[chosen].transpose(2, 0, 1)
        )
    }


def _rename(name: str, stored: Checkpoint) -> str | None:
    """The parameter's name; None for what the encoder does not use or has under another name."""
    if name.startswith(("decoder.", "lm_head.")) or (
        name == "encoder.embed_tokens.weight" and "shared.weight" in stored
    ):
        return None
    if name.endswith(_BIAS):
        return "position_bias"
    name = name.removeprefix("encoder.")
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return "shared.weight" if name == "embed_tokens.weight" else name
