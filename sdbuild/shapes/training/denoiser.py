"""The UNet: predicts the noise in latents, as SD 1.x does, with the text encoder and the autoencoder frozen.

The loss is the mean squared error of the predicted noise, weighted by min(SNR, 5) / SNR (Hang et al. 2023, "Efficient
Diffusion Training via Min-SNR Weighting Strategy"); one sentence in ten is empty, for classifier-free guidance (Ho and
Salimans 2022); what is kept is the exponential moving average of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from sdbuild.shapes.training.loop import Course, Say, run
from sdbuild.shapes.training.text import WIDTH

_COURSES = (Course("unet", steps=5000, rate=1.2e-3), Course("unet, again", steps=4000, rate=1e-3))
"""The second cycle starts from the average of the first; pictures of unseen combinations gain most by it."""

_BATCH = 48
_AVERAGE = 0.998
_UNSAID = 0.1
_MOST_SNR = 5.0
_SEED = 3


def make() -> UNet2DConditionModel:
    """The untrained UNet: SD 1.x's four levels, one layer each."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(48, 64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@cache  # every batch is noised with it
def noise_schedule() -> DDPMScheduler:
    """SD 1.x's schedule."""
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


@dataclass(frozen=True)
class Examples:
    """What the UNet learns from.

    Attributes:
        latents: (N, 4, 8, 8) float32, scaled.
        states: (N, K, 77, width) float16, of K sentences for each picture.
        unsaid: (77, width), the states of the empty sentence.
    """

    latents: Tensor
    states: Tensor
    unsaid: Tensor

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random rows: their numbers, latents and states, some states those of the empty sentence."""
        rows = torch.randint(len(self.latents), (size,), generator=generator)
        sentence = torch.randint(self.states.shape[1], (size,), generator=generator)
        states = self.states[rows, sentence].float()
        states[torch.rand(size, generator=generator) < _UNSAID] = self.unsaid
        return rows, self.latents[rows], states


class Average:
    """The exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module) -> None:
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights; faster in the first steps."""
        share = 1 - min(_AVERAGE, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value, share)


def loss(
    predict: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    examples: Examples,
    batch: int,
    generator: torch.Generator,
) -> Tensor:
    """The weighted error of a prediction from rows' numbers, noisy latents, time steps and states."""
    schedule = noise_schedule()
    rows, latents, states = examples.batch(batch, generator)
    noise = torch.randn(latents.shape, generator=generator)
    steps = torch.randint(1000, (batch,), generator=generator)
    predicted = predict(rows, schedule.add_noise(latents, noise, steps), steps, states)
    kept = schedule.alphas_cumprod[steps]
    ratio = kept / (1 - kept)
    weight = ratio.clamp(max=_MOST_SNR) / ratio
    errors = functional.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
    return torch.mean(weight * errors)


def train(
    examples: Examples,
    say: Say,
    snapshot: Callable[[UNet2DConditionModel, str], None] = lambda model, name: None,
) -> UNet2DConditionModel:
    """Train from scratch; `snapshot` is given the averaged model now and then, with a name."""
    torch.manual_seed(_SEED)
    model = make()
    for number, course in enumerate(_COURSES):
        model = _cycle(model, course, examples, torch.Generator().manual_seed(_SEED + 100 * number), say, snapshot)
    return model


def _cycle(
    begun: UNet2DConditionModel,
    course: Course,
    examples: Examples,
    generator: torch.Generator,
    say: Say,
    snapshot: Callable[[UNet2DConditionModel, str], None],
) -> UNet2DConditionModel:
    """One cycle of the learning rate, from a model to the average of what follows."""
    model = begun.train().to(memory_format=torch.channels_last)
    average = Average(model)

    def predict(_: Tensor, noisy: Tensor, steps: Tensor, states: Tensor) -> Tensor:
        predicted: Tensor = model(noisy, steps, states).sample
        return predicted

    def after(step: int) -> None:
        average.update(model, step)
        if (step + 1) % 1000 == 0:
            snapshot(_with(average), f"{course.name} {step + 1}")

    run(course, model.parameters(), lambda _: loss(predict, examples, _BATCH, generator), say, after)
    return _with(average)


def _with(average: Average) -> UNet2DConditionModel:
    model = make()
    model.load_state_dict(average.values)
    return model.eval()
