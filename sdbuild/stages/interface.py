"""The parameters that fix a model's inputs and outputs, which converting it and running the original share."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from sdbuild.stages.parameters import parameters, to_document

UNSTATED: Literal[""] = ""
"""Other than None, which says something: what is not stated is no part of a key document."""


@parameters
class Interface:
    """What a network is built for; what does not concern it stays at its default.

    Attributes:
        component: a key of `sdbuild.components.NETWORKS`.
        latent_height: rows of the latent image.
        latent_width: columns of the latent image.
        text_sequence_length: tokens of a text.
        batch: how many samples a denoiser takes.
        controlnet_ready: whether a UNet takes ControlNets' residuals.
        adapter_ready: whether a UNet takes T2I-Adapters' features.
        family: the checkpoint's, where the network depends on it; None for SD 1 and 2.
        latent_statistics: whether a VAE's mean and spread of latents go into its models; they always do, and older
            results of VAEs were without.
        clip_skip: how many of a text encoder's last layers are left out.
    """

    component: str
    latent_height: int | None = None
    latent_width: int | None = None
    text_sequence_length: int | None = None
    batch: int | None = None
    controlnet_ready: bool | None = None
    adapter_ready: bool = False
    family: str | None = UNSTATED
    latent_statistics: bool = False
    clip_skip: int | None = None

    def build_arguments(self) -> dict[str, Any]:
        """The arguments of `sdbuild.models.build.build` besides the checkpoint: what concerns the network."""
        names = {field.name for field in dataclasses.fields(Interface)}
        stated: dict[str, Any] = to_document(self)
        return {name: value for name, value in stated.items() if name in names}
