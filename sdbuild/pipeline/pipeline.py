"""Pictures from a bundle alone, on any machine: the models that will ship, their own vocabulary, the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sdbuild.pipeline import pictures, text
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.denoiser import Condition, Denoiser, Floats
from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.noise import GeneratorName, NoiseSource, noise_source
from sdbuild.pipeline.schedulers import scheduler as make_scheduler

Step = Callable[[int, int], None]
"""Called after every denoising step with the steps done and the steps in all."""


@dataclass(frozen=True)
class Request:
    """What to draw; see `Pipeline.__call__` for each field."""

    negative_prompt: str = ""
    steps: int = 25
    guidance_scale: float = 7.5
    seed: int = 0
    image_count: int = 1
    scheduler: str = "default"
    generator: GeneratorName = "numpy"
    image: Image.Image | None = None
    strength: float = 0.75
    controlnet_images: Mapping[str, Image.Image] = field(default_factory=dict)
    controlnet_scale: float = 1.0
    safety: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PipelineError(f"steps={self.steps}: at least one step is needed")
        if self.image_count < 1:
            raise PipelineError(f"image_count={self.image_count}: at least one picture is needed")
        if not 0 < self.strength <= 1:
            raise PipelineError(f"strength={self.strength}: strength is above 0 and at most 1 (1 ignores the picture)")


class Pipeline:
    """A bundle, ready to draw."""

    def __init__(self, bundle: OpenBundle, *, reduce_memory: bool = False) -> None:
        self.bundle = bundle
        self._reduce_memory = reduce_memory
        self._tokenizer = text.Tokenizer(bundle.resources)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        precision: Literal["fp32", "fp16"] = "fp32",
        backend: Literal["torch", "coreml"] = "torch",
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
            PipelineError: `path` is no bundle.
        """
        opened = OpenBundle.open(Path(path), precision=precision, backend=backend, compute_unit=compute_unit)
        return cls(opened, reduce_memory=reduce_memory)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        on_step: Step | None = None,
        on_warning: Callable[[str], None] | None = None,
        **options: Any,
    ) -> list[Image.Image]:
        """Draw `image_count` pictures of every prompt, in order.

        Args:
            prompt: one prompt or several.
            on_step: called after each denoising step.
            on_warning: called with a sentence when something was cut or ignored.
            options: the fields of `Request`: `negative_prompt`; `steps`; `guidance_scale` (1 or less: no guidance);
                `seed` (32 bits); `image_count`; `scheduler` (`default`, the checkpoint's own, or a key of
                `schedulers.SCHEDULERS`); `generator` (`numpy`, as the Swift package by default, or `torch`); `image`
                and `strength` (image to image); `controlnet_images` (ControlNet's name in the bundle → picture) and
                `controlnet_scale`; `safety` (ask the bundle's safety checker, and blacken what it flags).

        Returns:
            PIL pictures whose `info` holds prompt, seed, steps, the bundle's digest and what the safety checker said.

        Raises:
            PipelineError: the bundle lacks a model that the request needs, or the request makes no sense.
        """
        try:
            request = Request(**options)
        except TypeError as error:
            raise PipelineError(
                f"{error}; a request has the fields {', '.join(Request.__dataclass_fields__)}"
            ) from None
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        drawn: list[Image.Image] = []
        total = len(prompts) * request.image_count
        for words in prompts:
            condition = self._condition(words, request, on_warning)
            latents = self._denoise(condition, request, on_step, offset=len(drawn), total=total)
            drawn += [self._finish(values, words, request) for values in latents]
        return drawn

    # Text

    def _condition(self, prompt: str, request: Request, on_warning: Callable[[str], None] | None) -> Condition:
        states = [self._encode(words, on_warning) for words in (request.negative_prompt, prompt)]
        hidden = np.concatenate([text.channels_first(state.hidden) for state in states])
        extras: dict[str, Floats] = {}
        unet = self.bundle.unet_inputs()
        if "text_embeds" in unet:
            pooled = [state.pooled for state in states if state.pooled is not None]
            if len(pooled) != 2:
                raise PipelineError("the UNet wants text_embeds, but the bundle's text encoders have no pooled_outputs")
            extras["text_embeds"] = np.concatenate(pooled)
        if "time_ids" in unet:
            extras["time_ids"] = _time_ids(unet["time_ids"].shape[-1], *self.bundle.image_size)
        return Condition(hidden, extras, self._controlnet_pictures(request))

    def _encode(self, prompt: str, on_warning: Callable[[str], None] | None) -> text.TextStates:
        states = []
        for name, padding in self.bundle.text_encoders():
            model = self.bundle.model(name)
            encoder = text.Encoder(model.predict, model.inputs[0].shape[1], padding)
            state, lost = encoder.encode(self._tokenizer, prompt)
            states.append(state)
            if self._reduce_memory:
                self.bundle.release(name)
        if lost and on_warning:
            on_warning(f"the text encoder takes {encoder.length} tokens; this end of the prompt was left out: {lost!r}")
        return text.join(states)

    def _controlnet_pictures(self, request: Request) -> tuple[Floats, ...]:
        known = self.bundle.controlnets
        unknown = sorted(set(request.controlnet_images) - set(known))
        if unknown:
            raise PipelineError(
                f"no ControlNet called {', '.join(unknown)}; the bundle has {', '.join(known) or 'none'}"
            )
        height, width = self.bundle.image_size
        return tuple(pictures.to_unit(picture, height, width) for picture in request.controlnet_images.values())

    # Denoising

    def _denoise(
        self, condition: Condition, request: Request, on_step: Step | None, *, offset: int, total: int
    ) -> list[Floats]:
        controlnets = list(request.controlnet_images)
        denoiser = Denoiser(
            [self.bundle.model(name) for name in self.bundle.unet_files(controlled=bool(controlnets))],
            [self.bundle.model(f"controlnet/{name}") for name in controlnets],
            controlnet_scale=request.controlnet_scale,
        )
        if denoiser.channels != self.bundle.latent_channels:
            raise PipelineError(
                f"the UNet takes {denoiser.channels} channels (inpainting or instruction models); this pipeline draws "
                "with UNets that take the latent image alone"
            )
        noise = noise_source(request.generator, request.seed)
        shape = (1, denoiser.channels, denoiser.height, denoiser.width)
        starts = [noise.normal(shape) for _ in range(request.image_count)]
        original = self._encode_picture(request.image, noise) if request.image is not None else None
        finished = []
        for index, start in enumerate(starts):
            finished.append(
                self._sample(denoiser, start, original, condition, request, on_step, (offset + index, total))
            )
        if self._reduce_memory:
            self.bundle.release()
        return finished

    def _sample(
        self,
        denoiser: Denoiser,
        noise: Floats,
        original: Floats | None,
        condition: Condition,
        request: Request,
        on_step: Step | None,
        position: tuple[int, int],
    ) -> Floats:
        scheduler = make_scheduler(request.scheduler, self.bundle.scheduler_configuration)
        scheduler.set_timesteps(request.steps)
        timesteps = scheduler.timesteps
        if original is None:
            latents = torch.from_numpy(noise) * scheduler.init_noise_sigma
        else:
            skipped = request.steps - min(int(request.steps * request.strength), request.steps)
            timesteps = timesteps[skipped * scheduler.order :]
            if not len(timesteps):
                raise PipelineError(f"strength={request.strength} leaves none of {request.steps} steps; raise either")
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(skipped * scheduler.order)
            latents = scheduler.add_noise(torch.from_numpy(original), torch.from_numpy(noise), timesteps[:1])
        stochastic = (
            {"generator": torch.Generator("cpu").manual_seed(request.seed)} if _takes_generator(scheduler) else {}
        )
        done, total = position
        for index, timestep in enumerate(timesteps):
            scaled = scheduler.scale_model_input(latents, timestep).numpy()
            prediction = denoiser.predict(scaled, float(timestep), condition, request.guidance_scale)
            latents = scheduler.step(torch.from_numpy(prediction), timestep, latents, **stochastic).prev_sample
            if on_step:
                on_step(done * len(timesteps) + index + 1, total * len(timesteps))
        values: Floats = latents.numpy().astype(np.float32)
        return values

    def _encode_picture(self, picture: Image.Image, noise: NoiseSource) -> Floats:
        """A picture's latents: a sample of the encoder's distribution, as the Swift package draws it."""
        if not self.bundle.has("VAEEncoder"):
            raise PipelineError("image to image needs VAEEncoder; add vae_encoder to the recipe's components")
        height, width = self.bundle.image_size
        moments = self.bundle.model("VAEEncoder").predict({"x": pictures.to_signed(picture, height, width)})["latent"]
        mean, logarithm = np.split(moments, 2, axis=1)
        sample = mean + np.exp(0.5 * np.clip(logarithm, -30, 20)) * noise.normal(mean.shape)
        return ((sample - self.bundle.shift_factor) * self.bundle.scaling_factor).astype(np.float32)

    # Pictures

    def _finish(self, latents: Floats, prompt: str, request: Request) -> Image.Image:
        z = latents / self.bundle.scaling_factor + self.bundle.shift_factor
        decoded = self.bundle.model("VAEDecoder").predict({"z": z.astype(np.float32)})["image"]
        if not np.isfinite(decoded).all():
            raise PipelineError("the VAE decoder overflowed; set precision: {vae_decoder: float32} in the recipe")
        picture = pictures.from_signed(decoded)
        flagged = request.safety and self.bundle.has("SafetyChecker") and self._is_flagged(picture)
        if flagged:
            picture = Image.new("RGB", picture.size)
        if self._reduce_memory:
            self.bundle.release()
        picture.info.update(
            {
                "prompt": prompt,
                "negative_prompt": request.negative_prompt,
                "seed": str(request.seed),
                "steps": str(request.steps),
                "guidance_scale": str(request.guidance_scale),
                "scheduler": request.scheduler,
                "bundle": self.bundle.digest,
                "flagged": str(flagged).lower(),
            }
        )
        return picture

    def _is_flagged(self, picture: Image.Image) -> bool:
        checker = self.bundle.model("SafetyChecker")
        specs = {spec.name: spec for spec in checker.inputs}
        _, height, width, _ = specs["images"].shape
        unit = pictures.to_unit(picture, height, width)
        outputs = checker.predict(
            {
                "clip_input": pictures.to_clip(picture, specs["clip_input"].shape[-1]),
                "images": np.ascontiguousarray(unit.transpose(0, 2, 3, 1)),
                "adjustment": np.zeros(specs["adjustment"].shape, np.float32),
            }
        )
        return bool(np.ravel(outputs["has_nsfw_concepts"])[0] > 0.5)


def _time_ids(values: int, height: int, width: int) -> NDArray[np.float32]:
    """SDXL's micro-conditioning (Podell et al., 2023, 2.2): sizes and crop, or sizes, crop and aesthetic score."""
    if values == 6:
        row = [height, width, 0, 0, height, width]
        return np.array([row, row], np.float32)
    if values == 5:
        return np.array([[height, width, 0, 0, score] for score in (2.5, 6.0)], np.float32)
    raise PipelineError(f"time_ids has {values} values; SDXL's UNet takes 6, its refiner's 5")


def _takes_generator(scheduler: Any) -> bool:
    import inspect

    return "generator" in inspect.signature(scheduler.step).parameters
