"""How latents are scaled between the VAE and the denoiser: by one factor, or by statistics of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.condition import Floats


@dataclass(frozen=True)
class LatentSpace:
    """Denoised latents are (z - mean) × factor / deviation, with z as the VAE has them.

    Attributes:
        factor: the scaling factor.
        mean: the shift, or one number for each channel, (1, channels, 1, 1).
        deviation: 1, or one number for each channel.
    """

    factor: float
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, bundle: OpenBundle) -> LatentSpace:
        """What `bundle.json` says; statistics as diffusers' SDXL pipelines read them, for Playground v2.5."""
        vae = bundle.document["vae"]
        if vae.get("latents_mean") is None or vae.get("latents_std") is None:
            return cls(bundle.scaling_factor, _channels([bundle.shift_factor]), _channels([1.0]))
        return cls(bundle.scaling_factor, _channels(vae["latents_mean"]), _channels(vae["latents_std"]))

    def scaled(self, latents: Floats) -> Floats:
        """What the denoiser takes."""
        values: Floats = (latents - self.mean) * np.float32(self.factor) / self.deviation
        return values

    def unscaled(self, latents: Floats) -> Floats:
        """What the decoder takes."""
        values: Floats = latents * self.deviation / np.float32(self.factor) + self.mean
        return values


def _channels(values: Sequence[float]) -> Floats:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)
