"""Pictures from a bundle alone, on any machine: the models that will ship, their own vocabulary, the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdbuild.pipeline import adapting, pictures, text
from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.clients.choice import client_of
from sdbuild.pipeline.clients.client import Artist, Client, Turn
from sdbuild.pipeline.condition import Condition, Floats, make_condition
from sdbuild.pipeline.denoiser import Denoiser
from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.models import Backend, Precision
from sdbuild.pipeline.request import Request
from sdbuild.pipeline.text import TextStates, Warn

Step = Callable[[int, int], None]
"""Called after every denoising step with the steps done and the steps of all pictures."""

Look = Callable[[int, Floats], None]
"""Called after every denoising step with the picture's number, from 0, and its latents."""


class Pipeline:
    """A bundle, ready to draw.

    What is drawn is what the client draws that a request names: Apple's Swift package, or diffusers.

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
        on_latents: Look | None = None,
        on_warning: Warn | None = None,
        **options: Any,
    ) -> list[Image.Image]:
        """Draw `image_count` pictures of every prompt, in order.

        Args:
            prompt: one prompt or several.
            on_step: called after each denoising step.
            on_latents: called after each denoising step with the latents.
            on_warning: called with a sentence when something was cut or ignored.
            options: the fields of `Request`.

        Returns:
            PIL pictures whose `info` holds prompt, seed, steps, the bundle's digest and what the safety checker said.

        Raises:
            RequestError: the request makes no sense.
            PipelineError: the bundle lacks a model that the request needs.
        """
        request = Request.of(options)
        return list(self.draw(prompt, request, on_step=on_step, on_latents=on_latents, on_warning=on_warning))

    def draw(
        self,
        prompt: str | Sequence[str],
        request: Request,
        *,
        on_step: Step | None = None,
        on_latents: Look | None = None,
        on_warning: Warn | None = None,
    ) -> Iterator[Image.Image]:
        """The pictures of `__call__`, each as soon as it is finished."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise RequestError("no prompt; give one, even if it is empty")
        client = client_of(self.bundle, request)
        client.check()
        if on_warning:
            for remark in client.remarks():
                on_warning(remark)
        states = text.encode(
            self.bundle,
            client.reader(),
            [request.negative_prompt, *prompts],
            reduce_memory=self._reduce_memory,
            on_warning=on_warning,
        )
        features = adapting.features(self.bundle, request)
        self._tidy()
        total = len(prompts) * request.image_count
        for number, words in enumerate(prompts):
            condition = self._condition(client, states, words, request).with_extras(features)
            turns = condition, self._refining(client, states, words, request)
            artist = client.artist(self._moments(client, request))
            for index in range(request.image_count):
                done = number * request.image_count + index

                def observe(step: int, steps: int, latents: Floats, done: int = done) -> None:
                    if on_latents:
                        on_latents(done, latents)
                    if on_step:
                        on_step(done * steps + step, total * steps)

                latents = self._denoise(artist, turns, request, index, observe)
                yield self._finish(client, latents, words, request, index)

    def _condition(self, client: Client, states: dict[str, TextStates], words: str, request: Request) -> Condition:
        height, width = self.bundle.image_size
        controls = tuple(pictures.to_unit(picture, height, width) for picture in request.controlnet_images.values())
        unconditional = client.unconditional(states[request.negative_prompt])
        return make_condition(
            self.bundle, unconditional, states[words], controls, client.guidance_scale, client.time_ids
        )

    def _refining(
        self, client: Client, states: dict[str, TextStates], words: str, request: Request
    ) -> Condition | None:
        """What steers the refiner, which attends to the second text encoder alone; None where there is none."""
        if not self.bundle.refiner_files:
            return None
        width = self.bundle.unet_inputs("UnetRefiner")["encoder_hidden_states"].shape[1]
        unconditional, conditional = (states[text].last(width) for text in (request.negative_prompt, words))
        return make_condition(
            self.bundle, unconditional, conditional, (), client.guidance_scale, client.time_ids, unet="UnetRefiner"
        )

    def _denoise(
        self,
        artist: Artist,
        turns: tuple[Condition, Condition | None],
        request: Request,
        index: int,
        observe: Callable[[int, int, Floats], None],
    ) -> Floats:
        condition, refining = turns

        def refiner() -> Turn:
            assert refining is not None
            self._tidy()
            return Denoiser([self.bundle.model(name) for name in self.bundle.refiner_files]), refining

        denoiser = Denoiser(
            [self.bundle.model(name) for name in self.bundle.unet_files(request.unet)],
            [self.bundle.model(f"controlnet/{name}") for name in request.controlnet_images],
            controlnet_scale=request.controlnet_scale,
        )
        latents = artist.latents(index, (denoiser, condition), None if refining is None else refiner, observe)
        self._tidy()
        return latents

    def _moments(self, client: Client, request: Request) -> Floats | None:
        """What the encoder makes of the picture to start from."""
        if request.image is None or not client.starts_from_picture:
            return None
        height, width = self.bundle.image_size
        model = self.bundle.model("VAEEncoder")
        moments = _only(model.predict({model.inputs[0].name: pictures.to_signed(request.image, height, width)}))
        self._tidy()
        return moments

    def _finish(self, client: Client, latents: Floats, prompt: str, request: Request, index: int) -> Image.Image:
        model = self.bundle.model("VAEDecoder")
        decoded = _only(model.predict({model.inputs[0].name: client.unscaled(latents)}))
        if not np.isfinite(decoded).all():
            raise PipelineError("the VAE decoder overflowed; set precision: {vae_decoder: float32} in the recipe")
        picture = pictures.from_signed(decoded)
        self._tidy()
        flagged = client.checks_safety
        if flagged:
            flagged = client.is_flagged(self.bundle.model("SafetyChecker"), picture)
            self._tidy()
        if flagged:
            picture = Image.new("RGB", picture.size)
        picture.info.update(self._story(client, prompt, request, index, flagged))
        return picture

    def _tidy(self) -> None:
        if self._reduce_memory:
            self.bundle.release()

    def _story(self, client: Client, prompt: str, request: Request, index: int, flagged: bool) -> dict[str, str]:
        """How a picture came to be, as its metadata tell."""
        story = {
            "client": client.name,
            "prompt": prompt,
            "negative_prompt": request.negative_prompt,
            "seed": str(request.seed),
            "steps": str(request.steps),
            "guidance_scale": f"{client.guidance_scale:g}",
            "rng": request.rng,
            **client.story(),
            "bundle": self.bundle.digest,
            "precision": self.bundle.precision,
            "flagged": str(flagged).lower(),
        }
        if request.image_count > 1:
            story["index"] = str(index)
        if self.bundle.refiner_files:
            story["refiner_start"] = f"{request.refiner_start:g}"
        if client.starts_from_picture:
            story["strength"] = f"{request.strength:g}"
        if request.controlnet_images:
            story["controlnets"] = ", ".join(request.controlnet_images)
            story["controlnet_scale"] = f"{request.controlnet_scale:g}"
        if request.adapter_images:
            story["t2i_adapters"] = ", ".join(request.adapter_images)
            story["adapter_conditioning_scale"] = ", ".join(f"{weight:g}" for weight in request.adapter_weights)
        return story


def _only(outputs: dict[str, Floats]) -> Floats:
    (values,) = outputs.values()
    return values
