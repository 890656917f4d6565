"""The UNet of a bundle as one callable: whole or in two chunks, batch 1 or 2, with or without ControlNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sdbuild.pipeline.condition import Condition, Floats
from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.models import RunnableModel


def numbers(latents: Floats) -> Floats:
    """The latents themselves.

    Raises:
        PipelineError: they are no numbers any more.
    """
    if not np.isfinite(latents).all():
        raise PipelineError(
            "the UNet's results are no numbers any more; `diagnose` shows where half precision overflows, "
            "precision: {unet: float32} in the recipe avoids it"
        )
    return latents


class Denoiser:
    """Predicts noise, with the models fed as the Swift package feeds them.

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
        self._inputs = {feature.name: feature for model in models for feature in model.inputs}
        self._batch = self._inputs["sample"].shape[0]

    def predict(self, latents: Floats, timestep: float, condition: Condition, guidance_scale: float | None) -> Floats:
        """The guided noise for one picture.

        Args:
            latents: (1, channels, height, width), scaled as the scheduler asks.
            timestep: the training step, possibly fractional.
            condition: both rows of the condition.
            guidance_scale: how far to go beyond the conditional prediction; None for that alone.
        """
        rows = self._rows(latents, timestep, condition, guided=guidance_scale is not None)
        if guidance_scale is None:
            return rows[-1:]
        unconditional, conditional = np.split(rows, 2)
        return unconditional + np.float32(guidance_scale) * (conditional - unconditional)

    def _rows(self, latents: Floats, timestep: float, condition: Condition, *, guided: bool) -> Floats:
        """The predictions for the unconditional row, if the batch or guidance has one, and for the conditional row."""
        if self._batch == 2:
            return self._run(np.repeat(latents, 2, axis=0), timestep, condition)
        halves = [slice(0, 1), slice(1, 2)] if guided else [slice(1, 2)]
        return np.concatenate([self._run(latents, timestep, condition.rows(half)) for half in halves])

    def _run(self, latents: Floats, timestep: float, condition: Condition) -> Floats:
        values: dict[str, Floats] = {
            "sample": latents,
            "timestep": np.full(self._inputs["timestep"].shape, timestep, np.float32),
            "encoder_hidden_states": condition.hidden,
            **condition.extras,
        }
        if self._controlnets:
            values |= self._residuals(values, condition.pictures)
        for model in self._models:
            missing = [feature.name for feature in model.inputs if feature.name not in values]
            if missing:
                raise PipelineError(f"the UNet takes {', '.join(missing)}, which this pipeline does not feed")
            values |= model.predict({feature.name: values[feature.name] for feature in model.inputs})
        return values["noise_pred"]

    def _residuals(self, values: Mapping[str, Floats], pictures: Sequence[Floats]) -> dict[str, Floats]:
        total: dict[str, Floats] = {}
        for controlnet, picture in zip(self._controlnets, pictures, strict=True):
            batch = len(values["sample"])
            outputs = controlnet.predict({**values, "controlnet_cond": np.repeat(picture, batch, axis=0)})
            for name, residual in outputs.items():
                scaled = residual * np.float32(self._controlnet_scale)
                total[name] = total[name] + scaled if name in total else scaled
        return total
