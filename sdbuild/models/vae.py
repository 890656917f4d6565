"""The autoencoder's two halves: latents to images and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.attention_processor import Attention
from torch import nn

from sdbuild.checkpoints.checkpoint import Checkpoint, ConstantWeight
from sdbuild.checkpoints.tiny_autoencoder import TINY_CLASS
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.attention import split_heads_and_queries
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.layers import WideRangeGroupNorm, pointwise, replace_group_norms
from sdbuild.models.unet import instantiate
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec, Weight

# The middle block attends from every latent pixel to every other with a single head: 512 MB of float16 weights at
# 128×128 latents. In pieces of this many queries they are 32 MB, and 8 MB at 64×64.
_QUERY_CHUNK = 1024

# Attention's parameters as diffusers named them before version 0.15; most published autoencoders still do.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class SpatialAttention(nn.Module):
    """diffusers' `Attention` as the autoencoder uses it: one head over all pixels, with norm and residual."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.scale: float = original.scale
        self.heads: int = original.heads
        self.group_norm = original.group_norm
        self.to_q = pointwise(original.to_q)
        self.to_k = pointwise(original.to_k)
        self.to_v = pointwise(original.to_v)
        self.to_out = nn.ModuleList([pointwise(original.to_out[0])])

    def forward(self, hidden: torch.Tensor, temb: None = None) -> torch.Tensor:
        """(B, C, H, W) → the same shape."""
        batch, channels, height, width = hidden.shape
        normed = self.group_norm(hidden).reshape(batch, channels, 1, height * width)
        attended = split_heads_and_queries(
            self.to_q(normed) * self.scale, self.to_k(normed), self.to_v(normed), self.heads, query_chunk=_QUERY_CHUNK
        )
        output: torch.Tensor = hidden + self.to_out[0](attended).reshape(hidden.shape)
        return output


class LatentStatistics(nn.Module):
    """The mean and spread of each latent channel, (1, C, 1, 1), by which latents of spread 1 are told.

    diffusers' SDXL pipelines draw on (latents - mean) / spread × factor (pipeline_stable_diffusion_xl.py, and the one
    of image to image); the clients know the factor alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.deviation = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.log_variance = nn.Parameter(torch.empty(1, channels, 1, 1))

    def undo(self, z: torch.Tensor) -> torch.Tensor:
        """Latents of spread 1 → the autoencoder's own, (1, C, h, w)."""
        return z * self.deviation + self.mean

    def apply_to(self, moments: torch.Tensor) -> torch.Tensor:
        """Mean and log variance of the autoencoder's latents → of those of spread 1, (1, 2C, h, w)."""
        mean, log_variance = torch.chunk(moments, 2, dim=1)
        return torch.cat([(mean - self.mean) / self.deviation, log_variance - self.log_variance], dim=1)


def _statistics(autoencoder: Any, arguments: BuildArguments) -> LatentStatistics | None:
    config = autoencoder.config
    if not arguments.latent_statistics or config.latents_mean is None or config.latents_std is None:
        return None
    with torch.device("meta"):
        return LatentStatistics(config.latent_channels)


def _constants(config: Any, prefix: str) -> dict[str, Weight]:
    """The values of `LatentStatistics`, which the configuration holds."""
    mean, deviation = (np.array(values, np.float64) for values in (config.latents_mean, config.latents_std))
    values = {"mean": mean, "deviation": deviation, "log_variance": 2 * np.log(deviation)}
    return {
        f"{prefix}.{name}": ConstantWeight(f"{prefix}.{name}", value.astype(np.float32).reshape(1, -1, 1, 1))
        for name, value in values.items()
    }


class VAEDecoder(nn.Module):
    """Latents (1, C, h, w), already divided by the scale factor, to an image (1, 3, H, W) in ±1."""

    def __init__(self, autoencoder: Any, statistics: LatentStatistics | None = None) -> None:
        super().__init__()
        self.statistics = statistics
        self.post_quant_conv = autoencoder.post_quant_conv or nn.Identity()
        self.decoder = autoencoder.decoder

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        """Decode; the result is not clamped."""
        z = z if self.statistics is None else self.statistics.undo(z)
        return (self.decoder(self.post_quant_conv(z)),)


class VAEEncoder(nn.Module):
    """An image (1, 3, H, W) in ±1 to the latents' mean and log variance, (1, 2C, h, w), not yet scaled."""

    def __init__(self, autoencoder: Any, statistics: LatentStatistics | None = None) -> None:
        super().__init__()
        self.statistics = statistics
        self.encoder = autoencoder.encoder
        self.quant_conv = autoencoder.quant_conv or nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Encode; drawing a sample is the caller's."""
        moments: torch.Tensor = self.quant_conv(self.encoder(x))
        return (moments if self.statistics is None else self.statistics.apply_to(moments),)


class TinyDecoder(nn.Module):
    """TAESD's decoder (diffusers' `AutoencoderTiny`): latents (1, C, h, w) to an image (1, 3, H, W) in ±1."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.decoder = nn.ModuleDict({"layers": autoencoder.decoder.layers})

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        """Decode; latents are bent into ±3 first, as it was trained."""
        image: torch.Tensor = self.decoder["layers"](torch.tanh(z / 3) * 3)
        return (image * 2 - 1,)


class TinyEncoder(nn.Module):
    """TAESD's encoder: an image (1, 3, H, W) in ±1 to (1, 2C, h, w), the latents and a log variance of none."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layers": autoencoder.encoder.layers})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Encode; it has no distribution, so that every sample is the mean."""
        latent: torch.Tensor = self.encoder["layers"]((x + 1) / 2)
        return (torch.cat([latent, torch.full_like(latent, NO_VARIANCE)], dim=1),)


NO_VARIANCE = -30.0
"""The logarithm of a variance that is as good as none: diffusers goes no lower, and its root is 3e-7."""


def build_vae(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """One half of the autoencoder of `checkpoint`."""
    config = read_config(checkpoint, "AutoencoderKL", TINY_CLASS)
    decodes = component == "vae_decoder"
    statistics: LatentStatistics | None = None
    if config.get("_class_name") == TINY_CLASS:
        autoencoder = instantiate(AutoencoderTiny, config, checkpoint)
        module: nn.Module = (TinyDecoder if decodes else TinyEncoder)(autoencoder).eval()
        factor = 2 ** (len(autoencoder.config.encoder_block_out_channels) - 1)
    else:
        autoencoder = instantiate(AutoencoderKL, config, checkpoint)
        statistics = _statistics(autoencoder, arguments)
        module = (VAEDecoder if decodes else VAEEncoder)(autoencoder, statistics).eval().requires_grad_(False)
        factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    for path, child in list(module.named_modules()):
        if isinstance(child, Attention):
            module.set_submodule(path, SpatialAttention(child))
    replace_group_norms(module, WideRangeGroupNorm)

    channels = autoencoder.config.latent_channels
    latent = (arguments.latent_height, arguments.latent_width)
    size = (factor * latent[0], factor * latent[1])
    if decodes:
        inputs = TensorSpec(
            "z",
            (1, channels, *latent),
            "float16",
            "The denoised latents, divided by the autoencoder's scale factor (and shifted, where it has a shift).",
        )
        outputs = TensorSpec(
            "image", (1, autoencoder.config.out_channels, *size), "float32", "The image, RGB, -1 to 1, not clamped."
        )
    else:
        inputs = TensorSpec("x", (1, autoencoder.config.in_channels, *size), "float16", "The image, RGB, -1 to 1.")
        outputs = TensorSpec(
            "latent",
            (1, 2 * channels, *latent),
            "float32",
            f"Mean (the first {channels} channels) and log variance of the latents, before scaling.",
        )
    halves = {name.partition(".")[0] for name, _ in module.named_children()}
    return ComponentModel(
        component=component,
        module=module,
        inputs=(inputs,),
        outputs=(outputs,),
        weights=map_weights(
            module,
            Checkpoint.open(checkpoint),
            lambda name: _rename(name) if name.partition(".")[0] in halves else None,
            given=None if statistics is None else _constants(autoencoder.config, "statistics"),
        ),
    )


def _rename(name: str) -> str:
    """An attention parameter's name today."""
    *path, layer, kind = name.split(".")
    if "attentions" in path and layer in _OLD_NAMES:
        layer = _OLD_NAMES[layer]
    return ".".join([*path, layer, kind])
