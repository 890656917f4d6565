"""The autoencoder's two halves."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.components.network import Argument, FunctionName, Network, Phase

_FOLDER = "vae"
_BUILD = FunctionName("vae:build_vae")
_ARGUMENTS = frozenset({Argument.LATENT})

VAE_DECODER = Network(
    name=Component.VAE_DECODER.value,
    title="Decodes a latent image to a picture.",
    folder=_FOLDER,
    build=_BUILD,
    original=FunctionName("originals:vae_decoder"),
    arguments=_ARGUMENTS,
    phase=Phase.DECODING,
    description="the VAE's decoder",
)
VAE_ENCODER = Network(
    name=Component.VAE_ENCODER.value,
    title="Encodes a picture as the mean and logarithm of the variance of its latent image.",
    folder=_FOLDER,
    build=_BUILD,
    original=FunctionName("originals:vae_encoder"),
    arguments=_ARGUMENTS,
    phase=Phase.PICTURE,
    description="the VAE's encoder",
)
