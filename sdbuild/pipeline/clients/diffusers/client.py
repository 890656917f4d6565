"""diffusers' pipelines as a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
from PIL import Image

from sdbuild.bundle.tokenizer import END
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.clients.client import Observe, Turn
from sdbuild.pipeline.clients.diffusers.latent_space import LatentSpace
from sdbuild.pipeline.clients.diffusers.prompts import DiffusersReader
from sdbuild.pipeline.clients.diffusers.safety import is_flagged
from sdbuild.pipeline.clients.diffusers.sampling import sample
from sdbuild.pipeline.clients.diffusers.schedulers import make_scheduler, scheduler_name
from sdbuild.pipeline.clients.swift.refusals import beyond
from sdbuild.pipeline.condition import Floats, geometry
from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.models import RunnableModel
from sdbuild.pipeline.random_sources import NumpySource, NvidiaSource, RandomSource, TorchSource
from sdbuild.pipeline.request import DEFAULT_SCHEDULER, DIFFUSERS_SCHEDULERS, Request
from sdbuild.pipeline.sd3 import TRANSFORMER
from sdbuild.pipeline.text import TextStates

_GUIDANCE_SCALE = 7.5
_AESTHETIC_SCORES = 2.5, 6.0
"""Of the unconditional and the conditional row for SDXL's refiner."""

_SOURCES: Mapping[str, Callable[[int], RandomSource]] = {
    "numpy": NumpySource,
    "torch": TorchSource,
    "nvidia": NvidiaSource,
}


class DiffusersClient:
    """Draws as the diffusers pipeline of the bundle's family does."""

    name: ClassVar[str] = "diffusers"

    def __init__(self, bundle: OpenBundle, request: Request) -> None:
        self._bundle = bundle
        self._request = request

    def check(self) -> None:
        """Refuse schedulers that diffusers does not have, or not for this bundle."""
        self._bundle.check(self._request, encodes=self.starts_from_picture)
        name = self._request.scheduler
        if self._request.configuration:
            raise RequestError("configuration= sets the Swift package's configuration; draw with client=swift")
        if self._bundle.has(TRANSFORMER) and name != DEFAULT_SCHEDULER:
            raise PipelineError(
                f"scheduler={name}: Stable Diffusion 3 is drawn by flow matching, with the checkpoint's own scheduler; "
                "leave it out"
            )
        if self.starts_from_picture and int(self._request.steps * self._request.strength) < 1:
            raise RequestError(
                f"strength={self._request.strength} leaves none of {self._request.steps} steps; raise either"
            )
        if name not in (DEFAULT_SCHEDULER, *DIFFUSERS_SCHEDULERS):
            raise RequestError(f"scheduler={name} is the Swift package's; write client=swift, or leave it out")
        make_scheduler(name, self._bundle.scheduler_configuration)

    def remarks(self) -> Iterator[str]:
        """Say why the Swift package does not draw, where nobody chose."""
        if self._request.client is None and (reason := beyond(self._bundle, self._request)):
            yield f"drawn as diffusers does (client=diffusers): {reason}"

    def reader(self) -> DiffusersReader:
        """CLIP's own tokenizer."""
        document = self._bundle.document
        padding = document.get("tokenizer", {}).get("padding_token", END)
        return DiffusersReader(self._bundle.resources, padding, document.get("textual_inversions", ()))

    @property
    def guidance_scale(self) -> float:
        """The request's, or 7.5."""
        return _GUIDANCE_SCALE if self._request.guidance_scale is None else self._request.guidance_scale

    @property
    def starts_from_picture(self) -> bool:
        """Whenever there is one."""
        return self._request.image is not None

    @property
    def checks_safety(self) -> bool:
        """Wherever there is a checker, unless the request says otherwise."""
        return self._request.safety and self._bundle.has("SafetyChecker")

    def unconditional(self, states: TextStates) -> TextStates:
        """Zeros for SDXL without a negative prompt, where `bundle.json` says so and the request not otherwise."""
        zeros = self._request.force_zeros_for_empty_prompt
        if zeros is None:
            zeros = bool(self._bundle.document.get("force_zeros_for_empty_prompt"))
        return states.zeros() if zeros and not self._request.negative_prompt else states

    def time_ids(self, values: int) -> Floats:
        """The picture's own size, twice, and no crop (Podell et al., 2023, 2.2)."""
        height, width = self._bundle.image_size
        return geometry(values, (height, width, 0, 0), (height, width), _AESTHETIC_SCORES)

    def artist(self, moments: Floats | None) -> _Artist:
        """The encoded picture is sampled first, and noise is drawn after it."""
        return _Artist(self._bundle, self._request, self.guidance_scale, moments)

    def unscaled(self, latents: Floats) -> Floats:
        """Latents as the VAE was trained with them."""
        return LatentSpace.of(self._bundle).unscaled(latents)

    def is_flagged(self, checker: RunnableModel, picture: Image.Image) -> bool:
        """What the checker says when diffusers asks it."""
        return is_flagged(checker, picture)

    def story(self) -> Mapping[str, str]:
        """The scheduler."""
        return {"scheduler": scheduler_name(self._request.scheduler, self._bundle.scheduler_configuration)}


class _Artist:
    def __init__(self, bundle: OpenBundle, request: Request, guidance_scale: float, moments: Floats | None) -> None:
        self._bundle = bundle
        self._request = request
        guided = guidance_scale > 1 and "timestep_cond" not in bundle.unet_inputs(request.unet)
        self._guidance_scale = guidance_scale if guided else None
        source = _SOURCES[request.rng](request.seed)
        # Schedulers can draw from PyTorch's generators alone.
        self._generator = (source if isinstance(source, TorchSource) else TorchSource(request.seed)).generator
        self._original: Floats | None = None
        if moments is not None:
            mean, logarithm = np.split(moments, 2, axis=1)
            drawn = source.sample(mean, np.exp(0.5 * np.clip(logarithm, -30, 20)))
            self._original = LatentSpace.of(bundle).scaled(drawn)
        self._noise = [source.normal(bundle.latent_shape) for _ in range(request.image_count)]

    def latents(self, index: int, first: Turn, refiner: Callable[[], Turn] | None, observe: Observe) -> Floats:
        """The last sample."""
        return sample(
            first,
            make_scheduler(self._request.scheduler, self._bundle.scheduler_configuration),
            self._request,
            self._guidance_scale,
            noise=self._noise[index],
            original=self._original,
            refiner=refiner,
            generator=self._generator,
            observe=observe,
        )
