"""A denoiser that predicts the velocity as one that predicts noise: what the Swift package's schedulers take.

Of a noisy latent x = α·x₀ + σ·ε the velocity is v = α·ε − σ·x₀, so that ε = α·v + σ·x. α and σ are the checkpoint's own
at the time step, and both products are float32 in every package: at late steps ε is nearly x, and the scheduler
divides what is left by a small α.

Source: Salimans and Ho 2022, Progressive Distillation for Fast Sampling of Diffusion Models, appendix D.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sdbuild.checkpoints.checkpoint import ConstantWeight
from sdbuild.models.component import ComponentModel
from sdbuild.models.original import Original
from sdbuild.prediction import read_tables

_NETWORK, _NOISE = "network", "noise"


class NoiseOfVelocity(nn.Module):
    """ε = α·v + σ·x, with α and σ from a table of training steps; between two steps both are interpolated."""

    table: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.last = steps - 1
        self.register_buffer("table", torch.empty(steps, 2, device="meta"))

    def forward(self, velocity: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """(B, C, h, w), (B, C or more, h, w), (B,) → (B, C, h, w); channels of `sample` beyond C are no latents."""
        lower = torch.floor(timestep)
        share = (timestep - lower)[:, None]
        first = nn.functional.embedding(lower.to(torch.int32), self.table)
        second = nn.functional.embedding((lower + 1).clamp(max=self.last).to(torch.int32), self.table)
        signal_and_noise = first + share * (second - first)
        alpha, sigma = signal_and_noise[:, 0, None, None, None], signal_and_noise[:, 1, None, None, None]
        return alpha * velocity + sigma * sample[:, : velocity.shape[1]]


class NoisePredictor(nn.Module):
    """A denoiser of velocity, and what makes noise of it."""

    def __init__(self, network: nn.Module, noise: NoiseOfVelocity) -> None:
        super().__init__()
        self.network = network
        self.noise = noise

    def forward(self, sample: Tensor, timestep: Tensor, *conditions: Tensor) -> tuple[Tensor]:
        """The noise; the inputs are the denoiser's."""
        (velocity,) = self.network(sample, timestep, *conditions)
        return (self.noise(velocity, sample, timestep),)


def predict_noise(model: ComponentModel, prediction: Path) -> ComponentModel:
    """A denoiser whose output is noise.

    `sample` becomes float32: the scheduler computes with the latents that it has, and the noise must fit those, not
    what half precision leaves of them.

    Args:
        model: a denoiser that predicts velocity.
        prediction: the artifact of the `prediction` stage.
    """
    table = _table(prediction)
    module = NoisePredictor(model.module, NoiseOfVelocity(len(table))).eval().requires_grad_(False)
    (output,) = model.outputs
    said = "The noise in each latent, computed from the velocity that the checkpoint predicts."
    return replace(
        model,
        module=module,
        inputs=tuple(replace(spec, dtype="float32") if spec.name == "sample" else spec for spec in model.inputs),
        outputs=(replace(output, description=said),),
        weights={f"{_NETWORK}.{name}": weight for name, weight in model.weights.items()}
        | {f"{_NOISE}.table": ConstantWeight(f"{_NOISE}.table", table)},
        float32_modules=(*(f"{_NETWORK}.{path}" for path in model.float32_modules), _NOISE),
    )


def original_noise(original: Original, prediction: Path) -> Original:
    """The original denoiser, whose output is noise too."""
    table = _table(prediction)
    noise = NoiseOfVelocity(len(table)).to_empty(device="cpu")
    noise.table.copy_(torch.from_numpy(table))

    def run(sample: Tensor, timestep: Tensor, *conditions: Tensor) -> tuple[Tensor, ...]:
        (velocity,) = original.run(sample, timestep, *conditions)
        return (noise(velocity, sample, timestep),)

    return Original(original.module, run)


def _table(prediction: Path) -> NDArray[np.float32]:
    """(steps, 2): α and σ."""
    return np.array(read_tables(prediction), np.float32).T.copy()
