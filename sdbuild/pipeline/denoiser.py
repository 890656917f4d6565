"""The UNet of a bundle as one callable: whole or in two chunks, batch 1 or 2, with or without ControlNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.errors import PipelineError

Floats = NDArray[np.float32]


class FeatureLike(Protocol):
    """An input as a model describes it."""

    @property
    def name(self) -> str:
        """The feature's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The default shape."""


class RunnableModel(Protocol):
    """A loaded model: the reference runtime's or Core ML's."""

    @property
    def inputs(self) -> Sequence[FeatureLike]:
        """What it takes."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run it once."""


@dataclass(frozen=True)
class Condition:
    """What steers the UNet at every step; arrays hold the unconditional and the conditional row.

    Attributes:
        hidden: (2, width, 1, tokens).
        extras: further inputs of the UNet with two rows each, such as SDXL's `text_embeds` and `time_ids`.
        pictures: for each ControlNet its picture, (1, 3, height, width) in 0–1.
    """

    hidden: Floats
    extras: Mapping[str, Floats]
    pictures: tuple[Floats, ...] = ()

    def rows(self, chosen: slice) -> Condition:
        """The same condition with some of its rows."""
        return Condition(self.hidden[chosen], {name: rows[chosen] for name, rows in self.extras.items()}, self.pictures)


class Denoiser:
    """Predicts noise as the Swift package does.

    Args:
        models: the UNet, or its first and second chunk; each is given the original inputs and what came before.
        controlnets: loaded ControlNets; their residuals are added up.
        controlnet_scale: how strongly they steer.
    """

    def __init__(
        self,
        models: Sequence[RunnableModel],
        controlnets: Sequence[RunnableModel] = (),
        *,
        controlnet_scale: float = 1.0,
    ) -> None:
        self._models = models
        self._controlnets = controlnets
        self._controlnet_scale = controlnet_scale
        specs = {spec.name: spec for model in models for spec in model.inputs}
        self.batch, self.channels, self.height, self.width = specs["sample"].shape
        self.inputs = specs

    def predict(self, latents: Floats, timestep: float, condition: Condition, guidance_scale: float) -> Floats:
        """The guided noise for one picture.

        Args:
            latents: (1, channels, height, width), scaled as the scheduler asks.
            timestep: the training step, possibly fractional.
            condition: both rows of the condition.
            guidance_scale: 1 or less means no guidance: the conditional prediction alone.
        """
        if guidance_scale <= 1:
            return self._rows(latents, timestep, condition)[-1:]
        unconditional, conditional = np.split(self._rows(latents, timestep, condition, guided=True), 2)
        return unconditional + np.float32(guidance_scale) * (conditional - unconditional)

    def _rows(self, latents: Floats, timestep: float, condition: Condition, *, guided: bool = False) -> Floats:
        if self.batch == 2:
            return self._run(np.repeat(latents, 2, axis=0), timestep, condition)
        halves = [slice(0, 1), slice(1, 2)] if guided else [slice(1, 2)]
        return np.concatenate([self._run(latents, timestep, condition.rows(half)) for half in halves])

    def _run(self, latents: Floats, timestep: float, condition: Condition) -> Floats:
        batch = len(latents)
        features: dict[str, Floats] = {
            "sample": latents,
            "timestep": np.full((batch,), timestep, np.float32),
            "encoder_hidden_states": condition.hidden,
            **condition.extras,
        }
        if self._controlnets:
            features |= self._residuals(features, condition.pictures)
        produced: dict[str, Floats] = {}
        for model in self._models:
            available = {**features, **produced}
            missing = [spec.name for spec in model.inputs if spec.name not in available]
            if missing:
                raise PipelineError(f"the UNet wants {', '.join(missing)}, which this pipeline does not feed")
            produced |= model.predict({spec.name: available[spec.name] for spec in model.inputs})
        return produced["noise_pred"]

    def _residuals(self, features: Mapping[str, Floats], pictures: Sequence[Floats]) -> dict[str, Floats]:
        total: dict[str, Floats] = {}
        for controlnet, picture in zip(self._controlnets, pictures, strict=True):
            batch = len(features["sample"])
            outputs = controlnet.predict({**features, "controlnet_cond": np.repeat(picture, batch, axis=0)})
            for name, residual in outputs.items():
                scaled = residual * np.float32(self._controlnet_scale)
                total[name] = total[name] + scaled if name in total else scaled
        return total
