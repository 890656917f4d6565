"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer on latents of 16 channels, drawn along a flow."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.families.family import (
    Autoencoder,
    Configs,
    Descriptor,
    Family,
    Layout,
    Published,
    Sampling,
    TextEncoder,
)
from sdbuild.families.unets import TEXT, TEXT_G, VAE

# The encoder of T5 v1.1 XXL (Raffel et al. 2020): 32,128 words, 24 layers of 4096, 10,240 within.
_T5_PARAMETERS = 4_762_310_656
_PATCH = 2


def _matches(layout: Layout) -> bool:
    if "transformer" in layout.configs:
        class_name = layout.config("transformer").get("_class_name") or layout.classes.get("transformer")
        return class_name == "SD3Transformer2DModel"
    return not layout.config("unet") and layout.pipeline.startswith("StableDiffusion3")


def _divisor(configs: Configs) -> int:
    """The rows and columns of a patch."""
    return int(configs.get("transformer", {}).get("patch_size") or _PATCH)


SD3 = Descriptor(
    family=Family.SD3,
    title="SD 3",
    matches=_matches,
    denoiser=Component.TRANSFORMER,
    text_encoders=(
        TextEncoder(Component.TEXT_ENCODER, penultimate=True),
        TextEncoder(Component.TEXT_ENCODER_2, penultimate=True),
        TextEncoder(Component.TEXT_ENCODER_3, required=False),
    ),
    autoencoder=Autoencoder(scaling_factor=1.5305, shift_factor=0.0609, channels=16),
    sampling=Sampling.FLOW,
    sample_size=128,
    divisor=_divisor,
    abilities=frozenset(),
    # The authors of the Swift package found that the transformer needs single precision (README of
    # apple/ml-stable-diffusion, Using Stable Diffusion 3).
    upcast=frozenset({Component.TRANSFORMER}),
    minimum_generation=17,
    pipeline="sd3",
    guidance_scale=7.0,
    # Of the transformer and T5 only the counts of weights are known here, the tables of positions among them.
    published=Published(
        configs={
            "text_encoder": TEXT,
            "text_encoder_2": TEXT_G,
            "text_encoder_3": {},
            "transformer": {},
            "vae": {**VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
        },
        versions={
            "stabilityai/stable-diffusion-3-medium-diffusers": {},
            "stabilityai/stable-diffusion-3.5-medium": {},
        },
        parameters={
            "stabilityai/stable-diffusion-3-medium-diffusers": {
                "transformer": 2_084_951_104,
                "text_encoder_3": _T5_PARAMETERS,
            },
            "stabilityai/stable-diffusion-3.5-medium": {
                "transformer": 2_469_663_936,
                "text_encoder_3": _T5_PARAMETERS,
            },
        },
    ),
)
