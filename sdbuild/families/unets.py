"""What families with a UNet have in common: how they are told, the sizes that they take, published configurations."""

from __future__ import annotations

from collections.abc import Callable

from sdbuild.families.family import Autoencoder, Config, Configs, Layout

TEXT: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 768,
}
"""OpenAI's CLIP ViT-L/14."""
TEXT_G: Config = {
    **TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
"""OpenCLIP's ViT-bigG/14."""
VAE: Config = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2}
UNET: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
UNET_XL: Config = {
    **UNET,
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

XL_AUTOENCODER = Autoencoder(scaling_factor=0.13025, overflows=True)
"""Activations of SDXL's VAE exceed 65504, the largest half-precision number (ml-stable-diffusion#304)."""
OPEN_CLIP_FIRST = "conditioner.embedders.0.model."
"""What tensors of OpenCLIP's encoder are called in single files where it is the only one, as for the refiner."""


def levels_divisor(published: Config) -> Callable[[Configs], int]:
    """A function of configurations: latents are halved between a UNet's levels, of which `published` has so many."""

    def divisor(configs: Configs) -> int:
        blocks = configs.get("unet", {}).get("block_out_channels") or published["block_out_channels"]
        return 1 << (len(blocks) - 1)

    return divisor


def plain_width(layout: Layout) -> int | None:
    """The text width of a UNet without further conditions, published or told by its kind; None for all others.

    Small models for tests have widths of their own: then what their transformers begin with tells.
    """
    if "transformer" in layout.configs:
        return None
    unet = layout.config("unet")
    if not unet:
        return _width_of_pipeline(layout)
    if unet.get("addition_embed_type") is not None:
        return None
    width = unet.get("cross_attention_dim")
    if width in (768, 1024):
        return int(width)
    return 1024 if unet.get("use_linear_projection") else 768


def _width_of_pipeline(layout: Layout) -> int | None:
    """What the pipeline's class still tells when the UNet's configuration is not at hand."""
    others = ("StableDiffusion3", "StableDiffusionXL")
    if not layout.pipeline.startswith("StableDiffusion") or layout.pipeline.startswith(others):
        return None
    width = layout.config("text_encoder").get("hidden_size")
    return int(width) if width else None


def size_conditions(layout: Layout) -> int | None:
    """How many numbers an XL UNet is told beside the text: 6, or 5 of the refiner; None for all others."""
    if "transformer" in layout.configs:
        return None
    unet = layout.config("unet")
    if not unet:
        if not layout.pipeline.startswith("StableDiffusionXL"):
            return None
        return 6 if "text_encoder" in layout.configs else 5
    if unet.get("addition_embed_type") != "text_time":
        return None
    text_width = int(layout.config("text_encoder_2").get("projection_dim") or 1280)
    time_width = int(unet.get("addition_time_embed_dim") or 256)
    # The refiner's five numbers are size, crop and aesthetic score; the base has size, crop and target size: six.
    count = (int(unet.get("projection_class_embeddings_input_dim") or 0) - text_width) // time_width
    return 5 if count == 5 else 6
