"""Pictures from a bundle alone, on any machine: the models that will ship, their own vocabulary, the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdbuild.pipeline import adapting, pictures, text
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.condition import Condition, Floats, make_condition
from sdbuild.pipeline.denoiser import Denoiser
from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.models import Backend, Precision
from sdbuild.pipeline.noise import NoiseSource, noise_source
from sdbuild.pipeline.request import Request
from sdbuild.pipeline.safety import is_flagged
from sdbuild.pipeline.sampling import Turn, sample
from sdbuild.pipeline.schedulers import make_scheduler, scheduler_name
from sdbuild.pipeline.text import TextStates, Warn

Step = Callable[[int, int], None]
"""Called after every denoising step with the steps done and the steps of all pictures."""


class Pipeline:
    """A bundle, ready to draw.

    Attributes:
        bundle: the bundle, with the models that are in memory.
    """

    def __init__(self, bundle: OpenBundle, *, reduce_memory: bool = False) -> None:
        self.bundle = bundle
        self._reduce_memory = reduce_memory

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        precision: Precision = "fp32",
        backend: Backend = "torch",
        compute_unit: str | None = None,
        reduce_memory: bool = False,
    ) -> Pipeline:
        """Open a bundle directory (the one that holds `bundle.json` and `Resources`).

        Args:
            path: the bundle.
            precision: arithmetic of the reference runtime; `fp16` rounds each half-precision result as a device does.
            backend: `torch` runs anywhere; `coreml` runs Core ML itself on a Mac.
            compute_unit: for `coreml`; the target's by default.
            reduce_memory: keep only the model in memory that is at work.

        Raises:
            PipelineError: `path` is no bundle, or an option does not exist.
        """
        opened = OpenBundle.open(Path(path), precision=precision, backend=backend, compute_unit=compute_unit)
        return cls(opened, reduce_memory=reduce_memory)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        on_step: Step | None = None,
        on_warning: Warn | None = None,
        **options: Any,
    ) -> list[Image.Image]:
        """Draw `image_count` pictures of every prompt, in order.

        Args:
            prompt: one prompt or several.
            on_step: called after each denoising step.
            on_warning: called with a sentence when something was cut or ignored.
            options: the fields of `Request`.

        Returns:
            PIL pictures whose `info` holds prompt, seed, steps, the bundle's digest and what the safety checker said.

        Raises:
            RequestError: the request makes no sense.
            PipelineError: the bundle lacks a model that the request needs.
        """
        return list(self.draw(prompt, Request.of(options), on_step=on_step, on_warning=on_warning))

    def draw(
        self,
        prompt: str | Sequence[str],
        request: Request,
        *,
        on_step: Step | None = None,
        on_warning: Warn | None = None,
    ) -> Iterator[Image.Image]:
        """The pictures of `__call__`, each as soon as it is finished."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise RequestError("no prompt; give one, even if it is empty")
        self.bundle.check(request)
        make_scheduler(request.scheduler, self.bundle.scheduler_configuration)
        states = text.encode(
            self.bundle,
            [request.negative_prompt, *prompts],
            reduce_memory=self._reduce_memory,
            on_warning=on_warning,
        )
        features = adapting.features(self.bundle, request)
        self._tidy()
        total = len(prompts) * request.image_count
        for number, words in enumerate(prompts):
            condition = self._condition(states, words, request).with_extras(features)
            turns = condition, self._refining(states, words, request)
            noise = noise_source(request.generator, request.seed)
            starts = [noise.normal(self.bundle.latent_shape) for _ in range(request.image_count)]
            original = None if request.image is None else self._encode_picture(request.image, noise)
            for index, start in enumerate(starts):
                report = _after(number * request.image_count + index, total, on_step)
                latents = self._denoise(turns, request, start, original, noise, report)
                yield self._finish(latents, words, request, index)

    def _condition(self, states: dict[str, TextStates], words: str, request: Request) -> Condition:
        unconditional = states[request.negative_prompt]
        if request.force_zeros_for_empty_prompt and not request.negative_prompt:
            unconditional = unconditional.zeros()
        height, width = self.bundle.image_size
        controls = tuple(pictures.to_unit(picture, height, width) for picture in request.controlnet_images.values())
        return make_condition(self.bundle, unconditional, states[words], controls, request.guidance_scale)

    def _refining(self, states: dict[str, TextStates], words: str, request: Request) -> Condition | None:
        """What steers the refiner, which attends to the second text encoder alone; None where there is none."""
        if not self.bundle.refiner_files:
            return None
        width = self.bundle.unet_inputs("UnetRefiner")["encoder_hidden_states"].shape[1]
        unconditional, conditional = (states[text].last(width) for text in (request.negative_prompt, words))
        return make_condition(self.bundle, unconditional, conditional, (), request.guidance_scale, unet="UnetRefiner")

    def _denoise(
        self,
        turns: tuple[Condition, Condition | None],
        request: Request,
        noise: Floats,
        original: Floats | None,
        source: NoiseSource,
        on_step: Step | None,
    ) -> Floats:
        controlnets = list(request.controlnet_images)
        condition, refining = turns

        def refiner() -> Turn:
            assert refining is not None
            self._tidy()
            return Denoiser([self.bundle.model(name) for name in self.bundle.refiner_files]), refining

        denoiser = Denoiser(
            [self.bundle.model(name) for name in self.bundle.unet_files(request.unet)],
            [self.bundle.model(f"controlnet/{name}") for name in controlnets],
            controlnet_scale=request.controlnet_scale,
        )
        latents = sample(
            (denoiser, condition),
            make_scheduler(request.scheduler, self.bundle.scheduler_configuration),
            request,
            noise=noise,
            original=original,
            refiner=None if refining is None else refiner,
            generator=source.generator,
            on_step=on_step,
        )
        self._tidy()
        return latents

    def _encode_picture(self, picture: Image.Image, noise: NoiseSource) -> Floats:
        """A picture's latents: a sample of the encoder's distribution, as the Swift package draws it."""
        height, width = self.bundle.image_size
        model = self.bundle.model("VAEEncoder")
        moments = _only(model.predict({model.inputs[0].name: pictures.to_signed(picture, height, width)}))
        mean, logarithm = np.split(moments, 2, axis=1)
        drawn = mean + np.exp(0.5 * np.clip(logarithm, -30, 20)) * noise.normal(mean.shape)
        self._tidy()
        latents: Floats = ((drawn - self.bundle.shift_factor) * self.bundle.scaling_factor).astype(np.float32)
        return latents

    def _finish(self, latents: Floats, prompt: str, request: Request, index: int) -> Image.Image:
        z = latents / self.bundle.scaling_factor + self.bundle.shift_factor
        model = self.bundle.model("VAEDecoder")
        decoded = _only(model.predict({model.inputs[0].name: z.astype(np.float32)}))
        if not np.isfinite(decoded).all():
            raise PipelineError("the VAE decoder overflowed; set precision: {vae_decoder: float32} in the recipe")
        picture = pictures.from_signed(decoded)
        self._tidy()
        flagged = request.safety and self.bundle.has("SafetyChecker")
        if flagged:
            flagged = is_flagged(self.bundle.model("SafetyChecker"), picture)
            self._tidy()
        if flagged:
            picture = Image.new("RGB", picture.size)
        picture.info.update(self._story(prompt, request, index, flagged))
        return picture

    def _tidy(self) -> None:
        if self._reduce_memory:
            self.bundle.release()

    def _story(self, prompt: str, request: Request, index: int, flagged: bool) -> dict[str, str]:
        """How a picture came to be, as its metadata tell."""
        story = {
            "prompt": prompt,
            "negative_prompt": request.negative_prompt,
            "seed": str(request.seed),
            "steps": str(request.steps),
            "guidance_scale": f"{request.guidance_scale:g}",
            "scheduler": scheduler_name(request.scheduler, self.bundle.scheduler_configuration),
            "generator": request.generator,
            "bundle": self.bundle.digest,
            "precision": self.bundle.precision,
            "flagged": str(flagged).lower(),
        }
        if request.image_count > 1:
            story["index"] = str(index)
        if self.bundle.refiner_files:
            story["refiner_start"] = f"{request.refiner_start:g}"
        if request.image is not None:
            story["strength"] = f"{request.strength:g}"
        if request.controlnet_images:
            story["controlnets"] = ", ".join(request.controlnet_images)
            story["controlnet_scale"] = f"{request.controlnet_scale:g}"
        if request.adapter_images:
            story["t2i_adapters"] = ", ".join(request.adapter_images)
            story["adapter_conditioning_scale"] = ", ".join(f"{weight:g}" for weight in request.adapter_weights)
        return story


def _after(pictures_done: int, pictures_in_all: int, on_step: Step | None) -> Step | None:
    """A report that counts the steps of all pictures, for one of them."""
    if on_step is None:
        return None
    return lambda done, steps: on_step(pictures_done * steps + done, pictures_in_all * steps)


def _only(outputs: dict[str, Floats]) -> Floats:
    (values,) = outputs.values()
    return values
