"""The configurations of the published checkpoints, so that a recipe is judged before any of their files is here.

Only what the preflight rules and the memory estimate read; the values are those of each repository's `config.json`.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_TEXT: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 768,
}
# OpenCLIP's ViT-H/14 without its last layer, and ViT-bigG/14.
_TEXT_H: Config = _TEXT | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
_TEXT_G: Config = _TEXT | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
_VAE: Config = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2}
_UNET: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_UNET_XL: Config = _UNET | {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_UNET_REFINER: Config = _UNET_XL | {
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}

PUBLISHED: dict[str, dict[str, Config]] = {
    "sd1": {"text_encoder": _TEXT, "unet": _UNET, "vae": _VAE, "safety_checker": {}},
    "sd2": {
        "text_encoder": _TEXT_H,
        "unet": _UNET | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024},
        "vae": _VAE,
    },
    "sdxl": {
        "text_encoder": _TEXT,
        "text_encoder_2": _TEXT_G,
        "unet": _UNET_XL,
        "vae": _VAE | {"force_upcast": True},
    },
    "sdxl-refiner": {"text_encoder_2": _TEXT_G, "unet": _UNET_REFINER, "vae": _VAE | {"force_upcast": True}},
    # Of the transformer and T5 only the counts of weights are known here.
    "sd3": {
        "text_encoder": _TEXT,
        "text_encoder_2": _TEXT_G,
        "text_encoder_3": {},
        "transformer": {},
        "vae": _VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    },
}
"""Family → folder of its pipeline → configuration."""

_T2I_ADAPTER: Config = {"channels": [320, 640, 1280, 1280], "num_res_blocks": 2}
T2I_ADAPTERS: dict[str, Config] = {
    "TencentARC/t2iadapter_canny_sd14v1": _T2I_ADAPTER
    | {"adapter_type": "full_adapter", "downscale_factor": 8, "in_channels": 1},
    "TencentARC/t2i-adapter-canny-sdxl-1.0": _T2I_ADAPTER
    | {"adapter_type": "full_adapter_xl", "downscale_factor": 16, "in_channels": 3},
}
"""Version of a T2I-Adapter → its configuration."""

_SD15, _SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
VARIATIONS: dict[str, tuple[str, dict[str, Config]]] = {
    "stable-diffusion-v1-5/stable-diffusion-inpainting": (_SD15, {"unet": {"in_channels": 9}}),
    "timbrooks/instruct-pix2pix": (_SD15, {"unet": {"in_channels": 8}}),
    "SimianLuo/LCM_Dreamshaper_v7": (_SD15, {"unet": {"time_cond_proj_dim": 256}}),
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": (_SDXL, {"unet": {"in_channels": 9}}),
}
"""Version → the version that it was trained from, and what differs in the configurations."""
