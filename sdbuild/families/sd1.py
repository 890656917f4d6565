"""Stable Diffusion 1.x (Rombach et al. 2022)."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.families.family import (
    Ability,
    Autoencoder,
    Descriptor,
    Family,
    Published,
    SingleFile,
    TextEncoder,
)
from sdbuild.families.unets import TEXT, UNET, VAE, levels_divisor, plain_width

SD1 = Descriptor(
    family=Family.SD1,
    title="SD 1.x",
    matches=lambda layout: plain_width(layout) == 768,
    denoiser=Component.UNET,
    text_encoders=(TextEncoder(Component.TEXT_ENCODER),),
    autoencoder=Autoencoder(),
    sample_size=64,
    divisor=levels_divisor(UNET),
    abilities=frozenset({*Ability} - {Ability.REFINER}),
    pipeline="sd",
    guidance_scale=7.5,
    single_file=SingleFile(
        matches=lambda tensors: not tensors.has_size_condition and not tensors.linear_projections,
        index={"_class_name": "StableDiffusionPipeline"},
        scheduler={
            "_class_name": "PNDMScheduler",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
        },
        heads=8,
    ),
    published=Published(
        configs={"text_encoder": TEXT, "unet": UNET, "vae": VAE, "safety_checker": {}},
        versions={
            "CompVis/stable-diffusion-v1-4": {},
            "runwayml/stable-diffusion-v1-5": {},
            "stable-diffusion-v1-5/stable-diffusion-v1-5": {},
            "stable-diffusion-v1-5/stable-diffusion-inpainting": {"unet": {"in_channels": 9}},
            "timbrooks/instruct-pix2pix": {"unet": {"in_channels": 8}},
            "SimianLuo/LCM_Dreamshaper_v7": {"unet": {"time_cond_proj_dim": 256}},
        },
    ),
)
