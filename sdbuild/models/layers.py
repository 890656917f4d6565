"""Layers in the layout that the Neural Engine wants: channels first, four dimensions, and no overflow in float16.

See docs/explanation/neural-engine.md for the reasons. Every layer here is made on the meta device from the shape of
the layer that it replaces; its weights come from the checkpoint under the same name.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from sdbuild.checkpoints.checkpoint import ConstantWeight
from sdbuild.models.errors import ModelError


def pointwise(layer: nn.Linear | nn.Conv2d) -> nn.Conv2d:
    """The 1×1 convolution that does over (B, C, 1, S) what a linear layer does over (B, S, C)."""
    if isinstance(layer, nn.Conv2d):
        return layer
    return nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None, device="meta")


def normalise_channels(hidden: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Layer normalisation over the channels of (B, C, 1, S), without scale and bias."""
    centred = hidden - hidden.mean(1, keepdim=True)
    variance = (centred * centred).mean(1, keepdim=True)
    return centred * torch.rsqrt(variance + epsilon)


def normalise_root_mean_square(
    hidden: torch.Tensor, dimension: int, epsilon: float, *, unit: float = 1.0
) -> torch.Tensor:
    """Root mean square normalisation (Zhang and Sennrich 2019), without scale, exact in float16 for every finite input.

    x / √(mean x² + ε) = u / √(mean u² + ε / m²) with u = x / m, as in `WideRangeGroupNorm`.

    Args:
        hidden: any shape, in units of `unit`.
        dimension: the dimension to normalise over.
        epsilon: ε for values in units of 1.
        unit: what 1 is in `hidden`; m is no smaller.
    """
    largest = hidden.abs().amax(dimension, keepdim=True).clamp(min=unit)
    relative = unit / largest
    scaled = hidden / largest
    variance = (scaled * scaled).mean(dimension, keepdim=True)
    return scaled * torch.rsqrt(variance + relative * relative * epsilon)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, 1, S).

    Written out, because torch normalises trailing dimensions only. coremltools recognises the steps up to the scale
    and emits its `layer_norm` operation over axis 1 for them.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        channels = math.prod(norm.normalized_shape)
        self.epsilon = norm.eps
        self.weight = nn.Parameter(torch.empty(1, channels, 1, 1, device="meta"))
        self.bias = nn.Parameter(torch.empty(1, channels, 1, 1, device="meta"))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, S) → the same shape."""
        return normalise_channels(hidden, self.epsilon) * self.weight + self.bias


class GroupNorm(nn.Module):
    """Group normalisation of (B, C, H, W) in four dimensions.

    A group's channels are folded into the rows, (B, groups, C/groups·H, W), which costs nothing and spares the Neural
    Engine the fifth dimension that coremltools' own decomposition has.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups = norm.num_groups
        self.epsilon = norm.eps
        self.weight = nn.Parameter(torch.empty(1, norm.num_channels, 1, 1, device="meta"))
        self.bias = nn.Parameter(torch.empty(1, norm.num_channels, 1, 1, device="meta"))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the same shape."""
        batch, _, _, width = hidden.shape
        grouped = hidden.reshape(batch, self.groups, -1, width)
        centred = grouped - grouped.mean((2, 3), keepdim=True)
        return self.normalise(centred).reshape(hidden.shape) * self.weight + self.bias

    def normalise(self, centred: torch.Tensor) -> torch.Tensor:
        """Divide by the standard deviation. In float16 the square overflows above 256."""
        variance = (centred * centred).mean((2, 3), keepdim=True)
        return centred * torch.rsqrt(variance + self.epsilon)


class WideRangeGroupNorm(GroupNorm):
    """Group normalisation that is exact in float16 for every finite input.

    The autoencoders' activations reach thousands (stabilityai/sdxl-vae overflows even float16 itself, the corrected
    madebyollin/sdxl-vae-fp16-fix stays below 65504), and their squares do not fit. Divided by the largest value first,
    they do: x / √(mean x² + ε) = u / √(mean u² + ε / m²) with u = x / m. Values below 1 are left as they are, so that
    m² neither vanishes nor makes ε / m² overflow.
    """

    def normalise(self, centred: torch.Tensor) -> torch.Tensor:
        """Divide by the standard deviation, by way of the largest magnitude of each group."""
        largest = centred.abs().amax((2, 3), keepdim=True).clamp(min=1)
        inverse = 1 / largest
        scaled = centred / largest
        variance = (scaled * scaled).mean((2, 3), keepdim=True)
        return scaled * torch.rsqrt(variance + inverse * inverse * self.epsilon)


class Sinusoid(nn.Module):
    """The sinusoidal embedding of timesteps and sizes (Vaswani et al. 2017, section 3.5; Ho et al. 2020).

    The phases reach 1000 rad, where float16 has a step of 0.5 rad: this module stays in float32.
    """

    frequencies: torch.Tensor

    def __init__(self, channels: int, flip_sin_to_cos: bool, frequency_shift: float, scale: float = 1) -> None:
        super().__init__()
        if channels % 2:
            raise ModelError(f"A timestep embedding of {channels} channels is not supported: it must be even.")
        self.cosine_first = flip_sin_to_cos
        half = channels // 2
        # In torch and in this order, so that the frequencies are diffusers' to the last bit.
        exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device="cpu") / (half - frequency_shift)
        self.values = (scale * torch.exp(exponents)).numpy()[np.newaxis]
        self.register_buffer("frequencies", torch.empty(1, half, device="meta"))

    def constant(self, path: str) -> dict[str, ConstantWeight]:
        """The frequencies as a weight of the module at `path`."""
        return {f"{path}.frequencies": ConstantWeight(f"{path}.frequencies", self.values)}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(N,) → (N, channels)."""
        phases = values[:, None] * self.frequencies
        sine, cosine = torch.sin(phases), torch.cos(phases)
        return torch.cat([cosine, sine] if self.cosine_first else [sine, cosine], dim=-1)


def replace_group_norms(module: nn.Module, replacement: type[GroupNorm]) -> None:
    """Replace every group normalisation below `module`, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, replacement(child))
