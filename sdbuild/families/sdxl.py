"""SDXL's base (Podell et al. 2023) and what was trained from it."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.families.family import (
    Ability,
    Descriptor,
    Family,
    Published,
    SingleFile,
    TextEncoder,
)
from sdbuild.families.unets import (
    OPEN_CLIP_FIRST,
    TEXT,
    TEXT_G,
    UNET_XL,
    VAE,
    XL_AUTOENCODER,
    levels_divisor,
    size_conditions,
)

SDXL = Descriptor(
    family=Family.SDXL,
    title="SDXL",
    matches=lambda layout: size_conditions(layout) == 6,
    denoiser=Component.UNET,
    text_encoders=(
        TextEncoder(Component.TEXT_ENCODER, penultimate=True),
        TextEncoder(Component.TEXT_ENCODER_2, penultimate=True),
    ),
    autoencoder=XL_AUTOENCODER,
    time_ids=6,
    sample_size=128,
    divisor=levels_divisor(UNET_XL),
    abilities=frozenset(
        {
            *(Ability.T2I_ADAPTERS, Ability.TEXTUAL_INVERSIONS, Ability.REFINER),
            *(Ability.IMAGE_TO_IMAGE, Ability.NEURAL_ENGINE),
        }
    ),
    minimum_generation=17,
    pipeline="sdxl",
    guidance_scale=5.0,
    force_zeros_for_empty_prompt=True,
    single_file=SingleFile(
        matches=lambda tensors: (
            tensors.has_size_condition
            and OPEN_CLIP_FIRST not in tensors.encoders
            and (bool(tensors.encoders) or tensors.text_width != 1280)
        ),
        index={"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
        scheduler={"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    ),
    published=Published(
        configs={
            "text_encoder": TEXT,
            "text_encoder_2": TEXT_G,
            "unet": UNET_XL,
            "vae": {**VAE, "force_upcast": True},
        },
        versions={
            "stabilityai/stable-diffusion-xl-base-1.0": {},
            "stabilityai/sdxl-turbo": {},
            "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": {"unet": {"in_channels": 9}},
        },
    ),
)
