"""The denoisers: the UNet with its variants, and Stable Diffusion 3's transformer."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.components.network import Argument, FunctionName, Network, Phase, Variant

_ARGUMENTS = frozenset({Argument.LATENT, Argument.TEXT, Argument.BATCH})

UNET = Network(
    name=Component.UNET.value,
    title="Predicts the noise in a latent image at a time step, steered by text states.",
    folder="unet",
    build=FunctionName("unet:build_unet"),
    original=FunctionName("originals:unet"),
    arguments=_ARGUMENTS,
    phase=Phase.DENOISING,
    description="the UNet",
    variants=(
        Variant("controlled_unet", flag="controlnet_ready"),
        Variant("adapted_unet", flag="adapter_ready"),
        # SDXL's second denoiser, beside the base's; `refiner` of a recipe names its checkpoint.
        Variant("unet_refiner", setting="unet_refiner", description="the refiner's UNet"),
    ),
)
TRANSFORMER = Network(
    name=Component.TRANSFORMER.value,
    title="Predicts the velocity from a noisy latent image to the clean one, steered by text states.",
    folder="transformer",
    build=FunctionName("mmdit:build_transformer"),
    original=FunctionName("originals:transformer"),
    arguments=_ARGUMENTS,
    phase=Phase.DENOISING,
    description="SD 3's transformer",
    # The Swift package always feeds it two samples.
    batch=2,
    time_steps=FunctionName("samples:flow_timesteps"),
    text_states=FunctionName("scene:clip_and_t5_states"),
)
