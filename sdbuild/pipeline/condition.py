"""What steers the UNet at every step: text states, SDXL's sizes, ControlNets' pictures, T2I-Adapters' features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.bundle import OpenBundle
from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.text import TextStates

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Condition:
    """What steers the UNet; arrays hold the unconditional and the conditional row.

    Attributes:
        hidden: (2, width, 1, tokens).
        extras: further inputs of the UNet with two rows each, such as SDXL's `text_embeds` and `time_ids`, or features.
        pictures: for each ControlNet its picture, (1, 3, height, width) in 0–1.
    """

    hidden: Floats
    extras: Mapping[str, Floats]
    pictures: tuple[Floats, ...] = ()

    def rows(self, chosen: slice) -> Condition:
        """The same condition with some of its rows."""
        return Condition(self.hidden[chosen], {name: rows[chosen] for name, rows in self.extras.items()}, self.pictures)

    def with_extras(self, extras: Mapping[str, Floats]) -> Condition:
        """The same condition with further inputs."""
        return replace(self, extras={**self.extras, **extras})


def make_condition(
    bundle: OpenBundle,
    unconditional: TextStates,
    conditional: TextStates,
    pictures: tuple[Floats, ...],
    guidance_scale: float,
    time_ids: Callable[[int], Floats],
    unet: str | None = None,
) -> Condition:
    """The condition that a bundle's UNet asks for, or the one called `unet`.

    Args:
        bundle: whose UNet.
        unconditional: what is steered away from.
        conditional: what is steered towards.
        pictures: ControlNets' pictures.
        guidance_scale: for UNets that are told it.
        time_ids: gives the sizes that SDXL's UNets are told, as many as they take.
        unet: the UNet's name.

    Raises:
        PipelineError: the text encoders do not give what the UNet takes.
    """
    states = (unconditional, conditional)
    inputs = bundle.unet_inputs(unet)
    hidden = _channels_first(np.concatenate([state.hidden for state in states]))
    expected = inputs["encoder_hidden_states"].shape[1:]
    if hidden.shape[1:] != expected:
        raise PipelineError(
            f"the text encoders give states of width {hidden.shape[1]} for {hidden.shape[3]} tokens, the UNet takes "
            f"{expected[0]} for {expected[2]}; all of the checkpoint's text encoders must be among the recipe's "
            "components"
        )
    extras: dict[str, Floats] = {}
    if "text_embeds" in inputs:
        pooled = [state.pooled for state in states if state.pooled is not None]
        if len(pooled) != 2:
            raise PipelineError(
                "the UNet takes text_embeds, but the bundle's last text encoder gives no pooled_outputs"
            )
        extras["text_embeds"] = np.concatenate(pooled)
    if "time_ids" in inputs:
        extras["time_ids"] = time_ids(inputs["time_ids"].shape[-1])
    if "timestep_cond" in inputs:
        row = guidance_embedding(guidance_scale - 1, inputs["timestep_cond"].shape[-1])
        extras["timestep_cond"] = np.concatenate([row, row])
    return Condition(hidden, extras, pictures)


def geometry(
    values: int, original: Sequence[float], target: Sequence[float], aesthetic_scores: tuple[float, float]
) -> Floats:
    """SDXL's micro-conditioning (Podell et al., 2023, 2.2), two rows.

    Args:
        values: how many a UNet takes.
        original: height and width of the original picture, and of the crop's corner.
        target: height and width of the picture.
        aesthetic_scores: of the unconditional and the conditional row; SDXL's refiner takes them in place of `target`.

    Raises:
        PipelineError: neither SDXL nor its refiner takes so many.
    """
    if values == 6:
        row = [*original, *target]
        return np.array([row, row], np.float32)
    if values == 5:
        return np.array([[*original, score] for score in aesthetic_scores], np.float32)
    raise PipelineError(f"time_ids has {values} values; SDXL's UNet takes 6, its refiner's 5")


def guidance_embedding(strength: float, width: int) -> Floats:
    """A guidance scale less one as sines and cosines, (1, width), for latent consistency models (Luo et al., 2023)."""
    half = width // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / (half - 1))
    phases = 1000 * strength * frequencies
    row = np.concatenate([np.sin(phases), np.cos(phases), np.zeros(width % 2)])
    values: Floats = row[None].astype(np.float32)
    return values


def _channels_first(hidden: Floats) -> Floats:
    """(batch, tokens, width) → (batch, width, 1, tokens), the layout of the UNet's input."""
    return np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :])
