"""SDXL's refiner (Podell et al. 2023, 2.5): a UNet of four levels with the base's second text encoder alone."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.families.family import (
    Ability,
    Config,
    Descriptor,
    Family,
    Published,
    SingleFile,
    TextEncoder,
)
from sdbuild.families.unets import (
    OPEN_CLIP_FIRST,
    TEXT_G,
    UNET_XL,
    VAE,
    XL_AUTOENCODER,
    levels_divisor,
    size_conditions,
)

_UNET: Config = {
    **UNET_XL,
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}

REFINER = Descriptor(
    family=Family.REFINER,
    title="SDXL",
    matches=lambda layout: size_conditions(layout) == 5,
    denoiser=Component.UNET,
    text_encoders=(TextEncoder(Component.TEXT_ENCODER_2, penultimate=True),),
    text_encoders_of=Family.SDXL,
    autoencoder=XL_AUTOENCODER,
    time_ids=5,
    sample_size=128,
    divisor=levels_divisor(_UNET),
    abilities=frozenset({Ability.TEXTUAL_INVERSIONS, Ability.IMAGE_TO_IMAGE, Ability.NEURAL_ENGINE}),
    minimum_generation=17,
    pipeline="sdxl",
    guidance_scale=5.0,
    force_zeros_for_empty_prompt=True,
    single_file=SingleFile(
        matches=lambda tensors: (
            tensors.has_size_condition
            and (OPEN_CLIP_FIRST in tensors.encoders or (not tensors.encoders and tensors.text_width == 1280))
        ),
        index={"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True},
        scheduler={"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    ),
    published=Published(
        configs={"text_encoder_2": TEXT_G, "unet": _UNET, "vae": {**VAE, "force_upcast": True}},
        versions={"stabilityai/stable-diffusion-xl-refiner-1.0": {}},
    ),
)
