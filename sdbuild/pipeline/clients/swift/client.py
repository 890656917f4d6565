"""Apple's Swift package as a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
from PIL import Image

from sdbuild.bundle.settings import Configuration
from sdbuild.interface.swift.rows import EXTENSIONS
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.clients.client import Observe, Turn
from sdbuild.pipeline.clients.swift.prompts import SwiftReader
from sdbuild.pipeline.clients.swift.refusals import refiners_first_step, refuse, starts_from_picture
from sdbuild.pipeline.clients.swift.safety import is_flagged
from sdbuild.pipeline.clients.swift.schedulers import DPMSolver, Flow, Pndm, add_noise, first_step, make
from sdbuild.pipeline.clients.swift.settings import configuration_of, pipeline_of
from sdbuild.pipeline.clients.swift.torch_source import SwiftTorchSource
from sdbuild.pipeline.condition import Floats, geometry
from sdbuild.pipeline.denoiser import numbers
from sdbuild.pipeline.models import RunnableModel
from sdbuild.pipeline.random_sources import NumpySource, NvidiaSource, RandomSource
from sdbuild.pipeline.request import SWIFT_SCHEDULERS, Request
from sdbuild.pipeline.text import TextStates

_MODELS = ("sdxl-controlnet", "t2i-adapter")
"""Extensions that are models beside those which the package loads."""

_SOURCES: Mapping[str, Callable[[int], RandomSource]] = {
    "numpy": NumpySource,
    "torch": SwiftTorchSource,
    "nvidia": NvidiaSource,
}


class SwiftClient:
    """Draws as `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or `StableDiffusion3Pipeline` does."""

    name: ClassVar[str] = "swift"

    def __init__(self, bundle: OpenBundle, request: Request) -> None:
        self._bundle = bundle
        self._request = request

    @cached_property
    def _configuration(self) -> Configuration:
        return configuration_of(self._bundle, self._request)

    @cached_property
    def _is_sd1(self) -> bool:
        return pipeline_of(self._bundle) == "StableDiffusionPipeline"

    @property
    def _is_sd3(self) -> bool:
        return pipeline_of(self._bundle) == "StableDiffusion3Pipeline"

    def check(self) -> None:
        """Refuse where the package stops."""
        self._bundle.check(self._request, encodes=self.starts_from_picture)
        refuse(self._bundle, self._request, self._configuration)

    def remarks(self) -> Iterator[str]:
        """Say what is ignored."""
        if self._request.image is not None and not self.starts_from_picture:
            yield "strength=1: the Swift package ignores the picture and draws from the prompt alone"
        spacing = self._configuration.scheduler_timestep_spacing
        if "schedulerTimestepSpacing" in self._request.configuration and not self._is_multistep:
            yield f"schedulerTimestepSpacing:{spacing} is of DPM-Solver++ alone; add scheduler=dpm"
        for name in self._bundle.document["extensions"]:
            if name not in _MODELS:
                yield f"{name}: {EXTENSIONS[name]}; the Swift package does not, and draws something else"

    @property
    def _is_multistep(self) -> bool:
        return self._configuration.scheduler_type == "dpmSolverMultistepScheduler"

    def reader(self) -> SwiftReader:
        """Byte pairs between spaces."""
        return SwiftReader(self._bundle.resources, self._bundle.document.get("textual_inversions", ()))

    @property
    def guidance_scale(self) -> float:
        """The request's, or what an app sets for the bundle."""
        return self._configuration.guidance_scale

    @property
    def starts_from_picture(self) -> bool:
        """Whenever there is one and `strength` is below 1."""
        return starts_from_picture(self._request)

    @property
    def checks_safety(self) -> bool:
        """Stable Diffusion 1 and 2 alone: no other pipeline of the package loads a checker."""
        return self._request.safety and self._is_sd1 and self._bundle.has("SafetyChecker")

    def unconditional(self, states: TextStates) -> TextStates:
        """The encoded negative prompt, even where it is empty."""
        return states

    def time_ids(self, values: int) -> Floats:
        """One number for both sides, whatever the picture's size."""
        settings = self._configuration
        sides = (settings.original_size,) * 2 + (settings.crops_coords_top_left,) * 2
        scores = settings.negative_aesthetic_score, settings.aesthetic_score
        return geometry(values, sides, (settings.target_size,) * 2, scores)

    def artist(self, moments: Floats | None) -> _Artist:
        """Noise for all pictures is drawn first, and the encoded picture is sampled after it."""
        guided = not self._is_sd1 or self.guidance_scale >= 1
        guidance_scale = self.guidance_scale if guided else None
        return _Artist(self._bundle, self._request, self._configuration, guidance_scale, moments)

    def unscaled(self, latents: Floats) -> Floats:
        """By the configuration's factors; the shift is read for Stable Diffusion 3 alone."""
        shift = self._configuration.decoder_shift_factor if self._is_sd3 else 0.0
        values: Floats = latents / np.float32(self._configuration.decoder_scale_factor) + np.float32(shift)
        return values

    def is_flagged(self, checker: RunnableModel, picture: Image.Image) -> bool:
        """What the checker says when the package asks it."""
        return is_flagged(checker, picture)

    def story(self) -> Mapping[str, str]:
        """The scheduler, with its spacing, and what the request set otherwise than the bundle."""
        names = {kind: name for name, kind in SWIFT_SCHEDULERS.items()}
        told = {"scheduler": names[self._configuration.scheduler_type]}
        if self._is_multistep:
            told["timestep_spacing"] = self._configuration.scheduler_timestep_spacing
        if self._request.configuration:
            told["configuration"] = ", ".join(f"{name}:{value}" for name, value in self._request.configuration.items())
        return told


class _Artist:
    def __init__(
        self,
        bundle: OpenBundle,
        request: Request,
        configuration: Configuration,
        guidance_scale: float | None,
        moments: Floats | None,
    ) -> None:
        self._request = request
        self._configuration = configuration
        self._guidance_scale = guidance_scale
        self._is_sd3 = pipeline_of(bundle) == "StableDiffusion3Pipeline"
        self._skipped = 0
        source = _SOURCES[request.rng](request.seed)
        self._starts = [source.normal(bundle.latent_shape) for _ in range(request.image_count)]
        if moments is not None:
            mean, logarithm = np.split(moments, 2, axis=1)
            drawn = source.sample(mean, np.exp(np.float32(0.5) * np.clip(logarithm, -30, 20)))
            original = drawn * np.float32(configuration.encoder_scale_factor)
            self._skipped = first_step(request.steps, request.strength)
            self._starts = [
                add_noise(self._scheduler(), request.steps, original, noise, request.strength) for noise in self._starts
            ]

    def latents(self, index: int, first: Turn, refiner: Callable[[], Turn] | None, observe: Observe) -> Floats:
        """What the last step took the picture without noise for, not the last sample."""
        scheduler = self._scheduler()
        steps = scheduler.time_steps[self._skipped :]
        times = scheduler.times if self._is_sd3 and isinstance(scheduler, Flow) else steps
        turn = refiners_first_step(len(steps), self._request.refiner_start)
        (denoiser, condition), sample = first, self._starts[index]
        for number, (step, time) in enumerate(zip(steps, times, strict=True)):
            if refiner is not None and number == turn:
                denoiser, condition = refiner()
            prediction = denoiser.predict(sample, float(time), condition, self._guidance_scale)
            sample = scheduler.step(prediction, step, sample)
            observe(number + 1, len(steps), sample)
        assert scheduler.denoised is not None
        return numbers(scheduler.denoised)

    def _scheduler(self) -> Flow | DPMSolver | Pndm:
        settings = self._configuration
        return make(
            settings.scheduler_type,
            self._request.steps,
            spacing=settings.scheduler_timestep_spacing,
            shift=settings.scheduler_timestep_shift,
        )
