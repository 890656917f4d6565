"""The components of a pipeline that a recipe can name: a closed set, each registered as a network of this room."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A model of the pipeline, by its name in recipes."""

    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    TEXT_ENCODER_3 = "text_encoder_3"
    UNET = "unet"
    TRANSFORMER = "transformer"
    VAE_DECODER = "vae_decoder"
    VAE_ENCODER = "vae_encoder"
    SAFETY_CHECKER = "safety_checker"
