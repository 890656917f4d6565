"""diffusers' transformer blocks in (B, C, 1, S) layout.

The classes take diffusers' modules apart and put the same parameters, under the same names, into 1×1 convolutions and
norms over channels. Image features enter as (B, C, H, W), are flattened without moving an element to (B, C, 1, H·W),
and text arrives as (B, D, 1, L): no transposition is left but the one of the keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sdbuild.models.attention import AttentionFunction
from sdbuild.models.errors import ModelError
from sdbuild.models.layers import ChannelNorm, pointwise


class ChannelsFirstAttention(nn.Module):
    """diffusers' `Attention` without its options, none of which the supported families use."""

    def __init__(self, original: Any, attend: AttentionFunction) -> None:
        super().__init__()
        unsupported = {
            "cross_attention_norm": original.norm_cross,
            "qk_norm": original.norm_q,
            "added_kv_proj_dim": original.added_kv_proj_dim,
            "spatial_norm_dim": original.spatial_norm,
        }
        for option, value in unsupported.items():
            if value is not None:
                raise ModelError(f"config.json: attention with {option} is not supported.")
        self.attend = attend
        self.heads: int = original.heads
        self.scale: float = original.scale
        self.to_q = pointwise(original.to_q)
        self.to_k = pointwise(original.to_k)
        self.to_v = pointwise(original.to_v)
        self.to_out = nn.ModuleList([pointwise(original.to_out[0])])

    def forward(self, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, Q) and (B, D, 1, K) → (B, C, 1, Q)."""
        # The scale goes to the queries: one small product instead of one for each head's weights, and the products
        # with the keys stay in float16's range (what upcast_attention is for).
        query = self.to_q(hidden) * self.scale
        attended = self.attend(query, self.to_k(context), self.to_v(context), self.heads)
        output: torch.Tensor = self.to_out[0](attended)
        return output


class GatedGelu(nn.Module):
    """The first half of the feed-forward network (Shazeer 2020, GEGLU)."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.proj = pointwise(original.proj)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, S) → (B, 4C, 1, S)."""
        hidden = self.proj(hidden)
        value, gate = torch.split(hidden, [hidden.shape[1] // 2] * 2, dim=1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """diffusers' `FeedForward`; `net.1` is its dropout, kept for the names' sake."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        kind = type(original.net[0]).__name__
        if kind != "GEGLU":
            raise ModelError(f"config.json: a feed-forward network with {kind} is not supported; expected GEGLU.")
        self.net = nn.ModuleList([GatedGelu(original.net[0]), nn.Identity(), pointwise(original.net[2])])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, S) → the same shape."""
        output: torch.Tensor = self.net[2](self.net[0](hidden))
        return output


class ChannelsFirstBlock(nn.Module):
    """diffusers' `BasicTransformerBlock`: self-attention, cross-attention, feed-forward, each with its residual."""

    def __init__(self, original: Any, attend: AttentionFunction) -> None:
        super().__init__()
        if original.norm_type != "layer_norm" or original.pos_embed is not None:
            raise ModelError(f"config.json: transformer blocks with norm_type {original.norm_type} are not supported.")
        self.only_cross_attention: bool = original.only_cross_attention
        self.norm1 = ChannelNorm(original.norm1)
        self.attn1 = ChannelsFirstAttention(original.attn1, attend)
        self.norm2 = ChannelNorm(original.norm2) if original.attn2 is not None else None
        self.attn2 = ChannelsFirstAttention(original.attn2, attend) if original.attn2 is not None else None
        self.norm3 = ChannelNorm(original.norm3)
        self.ff = FeedForward(original.ff)

    def forward(self, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, S) and (B, D, 1, L) → (B, C, 1, S)."""
        normed = self.norm1(hidden)
        hidden = hidden + self.attn1(normed, context if self.only_cross_attention else normed)
        if self.attn2 is not None and self.norm2 is not None:
            hidden = hidden + self.attn2(self.norm2(hidden), context)
        output: torch.Tensor = hidden + self.ff(self.norm3(hidden))
        return output


class ChannelsFirstTransformer(nn.Module):
    """diffusers' `Transformer2DModel` for image features, with the call that diffusers' UNet blocks make."""

    def __init__(self, original: Any, attend: AttentionFunction) -> None:
        super().__init__()
        if not original.is_input_continuous:
            raise ModelError("config.json: transformers over patches or vectors are not supported.")
        self.norm = original.norm
        self.proj_in = pointwise(original.proj_in)
        self.transformer_blocks = nn.ModuleList(
            ChannelsFirstBlock(block, attend) for block in original.transformer_blocks
        )
        self.proj_out = pointwise(original.proj_out)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: object
    ) -> tuple[torch.Tensor]:
        """(B, C, H, W) and (B, D, 1, L) → (B, C, H, W), in the tuple that the caller unpacks."""
        batch, _channels, height, width = hidden_states.shape
        hidden = self.proj_in(self.norm(hidden_states)).reshape(batch, -1, 1, height * width)
        for block in self.transformer_blocks:
            hidden = block(hidden, encoder_hidden_states)
        return (self.proj_out(hidden.reshape(batch, -1, height, width)) + hidden_states,)
