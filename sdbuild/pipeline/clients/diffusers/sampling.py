"""From noise to a latent image: the scheduler's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdbuild.pipeline.clients.client import Observe, Turn
from sdbuild.pipeline.clients.diffusers.schedulers import takes_generator
from sdbuild.pipeline.condition import Floats
from sdbuild.pipeline.denoiser import numbers
from sdbuild.pipeline.request import Request


def sample(
    first: Turn,
    scheduler: Any,
    request: Request,
    guidance_scale: float | None,
    *,
    noise: Floats,
    original: Floats | None,
    refiner: Callable[[], Turn] | None = None,
    generator: torch.Generator,
    observe: Observe,
) -> Floats:
    """Denoise one latent image.

    Args:
        first: who begins.
        scheduler: a fresh scheduler of diffusers.
        request: steps, strength and the refiner's start.
        guidance_scale: how strongly the prompt steers; None without guidance.
        noise: (1, channels, height, width), standard normal.
        original: latents of the picture to start from, or None to start from noise alone.
        refiner: gives who draws the last steps, from `request.refiner_start` on; asked when it is its turn.
        generator: for schedulers that draw noise at every step.
        observe: called after each step.

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
        prediction = denoiser.predict(scaled, float(timestep), condition, guidance_scale)
        latents = scheduler.step(torch.from_numpy(prediction), timestep, latents, **drawing).prev_sample
        observe(index + 1, len(timesteps), latents.numpy())
    return numbers(latents.numpy().astype(np.float32))
