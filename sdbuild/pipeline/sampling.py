"""From noise to a latent image: the scheduler's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdbuild.pipeline.condition import Condition, Floats
from sdbuild.pipeline.denoiser import Denoiser
from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.request import Request
from sdbuild.pipeline.schedulers import takes_generator

Turn = tuple[Denoiser, Condition]
"""Who denoises, and what steers it."""

Count = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def sample(
    first: Turn,
    scheduler: Any,
    request: Request,
    *,
    noise: Floats,
    original: Floats | None,
    refiner: Callable[[], Turn] | None = None,
    generator: torch.Generator,
    on_step: Count | None = None,
) -> Floats:
    """Denoise one latent image.

    Args:
        first: who begins.
        scheduler: a fresh scheduler of diffusers.
        request: steps, strength and guidance scale.
        noise: (1, channels, height, width), standard normal.
        original: latents of the picture to start from, or None to start from noise alone.
        refiner: gives who draws the last steps, from `request.refiner_start` on; asked when it is its turn.
        generator: for schedulers that draw noise at every step.
        on_step: called after each step.

    Raises:
        PipelineError: the latents are no numbers any more.
    """
    scheduler.set_timesteps(request.steps)
    timesteps = scheduler.timesteps
    latents = torch.from_numpy(noise)
    if original is None:
        # Flow matching starts from noise as it is.
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        skipped = (request.steps - int(request.steps * request.strength)) * scheduler.order
        timesteps = timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        latents = scheduler.add_noise(torch.from_numpy(original), latents, timesteps[:1])
    denoiser, condition = first
    turn = int(len(timesteps) * request.refiner_start)
    drawing = {"generator": generator} if takes_generator(scheduler) else {}
    for index, timestep in enumerate(timesteps):
        if refiner is not None and index == turn:
            denoiser, condition = refiner()
        scales = hasattr(scheduler, "scale_model_input")
        scaled = (scheduler.scale_model_input(latents, timestep) if scales else latents).numpy()
        prediction = denoiser.predict(scaled, float(timestep), condition, request.guidance_scale)
        latents = scheduler.step(torch.from_numpy(prediction), timestep, latents, **drawing).prev_sample
        if on_step:
            on_step(index + 1, len(timesteps))
    values: Floats = latents.numpy().astype(np.float32)
    if not np.isfinite(values).all():
        raise PipelineError(
            "the UNet's results are no numbers any more; `diagnose` shows where half precision overflows, "
            "precision: {unet: float32} in the recipe avoids it"
        )
    return values
