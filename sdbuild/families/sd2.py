"""Stable Diffusion 2.x: OpenCLIP's ViT-H/14 without its last layer, and checkpoints that predict the velocity."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.families.family import (
    Ability,
    Autoencoder,
    Config,
    Descriptor,
    Family,
    Published,
    SingleFile,
    TextEncoder,
)
from sdbuild.families.unets import TEXT, UNET, VAE, levels_divisor, plain_width

_TEXT_H: Config = {
    **TEXT,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}

SD2 = Descriptor(
    family=Family.SD2,
    title="SD 2.x",
    matches=lambda layout: plain_width(layout) == 1024,
    denoiser=Component.UNET,
    text_encoders=(TextEncoder(Component.TEXT_ENCODER),),
    autoencoder=Autoencoder(),
    sample_size=64,
    divisor=levels_divisor(UNET),
    abilities=frozenset({*Ability} - {Ability.REFINER, Ability.T2I_ADAPTERS}),
    pipeline="sd",
    guidance_scale=7.5,
    single_file=SingleFile(
        matches=lambda tensors: not tensors.has_size_condition and tensors.linear_projections,
        index={"_class_name": "StableDiffusionPipeline"},
        scheduler={"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False},
        predictions=True,
    ),
    published=Published(
        configs={
            "text_encoder": _TEXT_H,
            "unet": {**UNET, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024},
            "vae": VAE,
        },
        versions={
            f"{owner}/stable-diffusion-{version}": {}
            for owner in ("stabilityai", "sd2-community")
            for version in ("2", "2-base", "2-1", "2-1-base")
        },
    ),
)
