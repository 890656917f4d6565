"""The KL autoencoder: 64×64 pictures to 8×8 latents with 4 channels, and back.

Trained on 32×32 squares first, which hold as much of a shape as whole pictures do for a quarter of the work, then on
whole pictures. Afterwards each latent channel is shifted and scaled, in the two 1×1 convolutions around the latents, so
that every channel has mean 0 and, times SD 1.x's factor 0.18215, deviation 1.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdbuild.shapes.drawing import picture
from sdbuild.shapes.scenes import Scene
from sdbuild.shapes.training.data import crops, scene, to_tensor
from sdbuild.shapes.training.loop import Course, Say, run

SCALE = 0.18215
_KL = 1e-5
_COURSE = Course("autoencoder", steps=4000, rate=2e-3, decay=1e-4)
_SQUARES, _SQUARE_STEPS = 32, 3600


def make() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        scaling_factor=SCALE,
    )


def train(say: Say) -> AutoencoderKL:
    """Train from scratch."""
    torch.manual_seed(0)
    model = make()
    squares, wholes = crops(_SQUARES, 32), crops(_SQUARES // 4, 64, start=1_000_000)

    def loss(step: int) -> Tensor:
        pixels = next(squares if step < _SQUARE_STEPS else wholes)
        side = pixels.shape[-1] // 8
        return _loss(model, pixels, torch.randn(pixels.shape[0], 4, side, side))

    run(_COURSE, model.parameters(), loss, say)
    return standardise(model.eval())


def _loss(model: AutoencoderKL, pixels: Tensor, noise: Tensor) -> Tensor:
    mean, log_variance = model.quant_conv(model.encoder(pixels)).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    error = model.decoder(model.post_quant_conv(latents)) - pixels
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    total: Tensor = error.abs().mean() + 2 * error.square().mean() + _KL * kl
    return total


@torch.no_grad()
def standardise(model: AutoencoderKL) -> AutoencoderKL:
    """Fold each latent channel's shift and scale into the convolutions around the latents."""
    latents = encode(model, [scene(number)[0] for number in range(2000)], scaled=False)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALE
    into, outof = model.quant_conv, model.post_quant_conv
    into.weight[:4] /= deviation[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.bias[4:] -= 2 * deviation.log()
    outof.bias += outof.weight[:, :, 0, 0] @ mean
    outof.weight *= deviation[None, :, None, None]
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, scenes: list[Scene], *, scaled: bool = True) -> Tensor:
    """The latents (N, 4, 8, 8) of scenes' pictures: the distribution's mean, scaled as the UNet sees it."""
    parts = []
    for start in range(0, len(scenes), 64):
        pixels = to_tensor(np.stack([picture(content) for content in scenes[start : start + 64]]))
        parts.append(model.encode(pixels).latent_dist.mean)
    return torch.cat(parts) * (SCALE if scaled else 1.0)
