"""Tiny checkpoints that differ from another one in a folder or two, as the published ones do from theirs.

The folders that do not differ hold the same bytes, so that builds of several variants share their work.
"""

from __future__ import annotations

from typing import Any

from sdbuild.builtin.tiny.configs import PIPELINES as BASES
from sdbuild.builtin.tiny.configs import Config

# Folder → the fields that differ; None for a folder that the variant does not have.
Changes = dict[str, dict[str, Any] | None]

_SD, _SDXL = "tiny-sd", "tiny-sdxl"
_TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}

_VARIANTS: dict[str, tuple[str, Changes]] = {
    # A mask and the masked picture's latents beside the noisy ones.
    "tiny-sd-inpaint": (_SD, {"": {"_class_name": "StableDiffusionInpaintPipeline"}, "unet": {"in_channels": 9}}),
    # The edited picture's latents beside the noisy ones.
    "tiny-pix2pix": (
        _SD,
        {"": {"_class_name": "StableDiffusionInstructPix2PixPipeline"}, "unet": {"in_channels": 8}},
    ),
    # The guidance scale is an input.
    "tiny-lcm": (
        _SD,
        {
            "": {"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"]},
            "unet": {"time_cond_proj_dim": 32},
            "scheduler": {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0},
        },
    ),
    # One layer a block and no middle, as in BK-SDM-Small (Kim et al. 2023) and the checkpoints after it.
    "tiny-small-sd": (_SD, {"unet": {"mid_block_type": None}}),
    # Normalised queries and keys, and a second attention in the first layers, as in 3.5 medium.
    "tiny-sd35": (
        "tiny-sd3",
        {"transformer": {"dual_attention_layers": [0, 1], "pos_embed_max_size": 32, "qk_norm": "rms_norm"}},
    ),
    "tiny-sdxl-turbo": (
        _SDXL,
        {
            "": {"scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"]},
            "scheduler": {"_class_name": "EulerAncestralDiscreteScheduler", **_TRAILING},
        },
    ),
    "tiny-sdxl-inpaint": (
        _SDXL,
        {"": {"_class_name": "StableDiffusionXLInpaintPipeline"}, "unet": {"in_channels": 9}},
    ),
    # A middle without attention, and other depths on the way up than on the way down, as in SSD-1B (Gupta et al. 2024).
    "tiny-ssd": (
        _SDXL,
        {
            "unet": {
                "layers_per_block": [1, 2, 1],
                "mid_block_type": "UNetMidBlock2D",
                "reverse_transformer_layers_per_block": [[2, 1], [1, 1, 2], 1],
                "transformer_layers_per_block": [1, [1, 2], 2],
            }
        },
    ),
    # The second text encoder alone, and an aesthetic score in the place of the target size (Podell et al. 2023, 2.5).
    "tiny-sdxl-refiner": (
        _SDXL,
        {
            "": {
                "_class_name": "StableDiffusionXLImg2ImgPipeline",
                "force_zeros_for_empty_prompt": False,
                "requires_aesthetics_score": True,
                "text_encoder": [None, None],
                "tokenizer": [None, None],
            },
            "text_encoder": None,
            "tokenizer": None,
            "unet": {
                "cross_attention_dim": 96,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
                "projection_class_embeddings_input_dim": 5 * 8 + 96,
                "transformer_layers_per_block": 2,
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            },
        },
    ),
}


def _changed(base: dict[str, Config], changes: Changes) -> dict[str, Config]:
    folders = {}
    for folder in [*base, *(name for name in changes if name not in base)]:
        difference = changes.get(folder, {})
        if difference is not None:
            folders[folder] = base.get(folder, {}) | difference
    return folders


# Fields of a UNet that its ControlNet, which has no second half, does not have.
_SECOND_HALF = ("center_input_sample", "dual_cross_attention", "out_channels", "sample_size", "up_block_types")


def _controlnet(base: str) -> dict[str, Config]:
    """A ControlNet for the UNet of a checkpoint."""
    first_half = {name: value for name, value in BASES[base]["unet"].items() if name not in _SECOND_HALF}
    return {
        "": first_half
        | {
            "_class_name": "ControlNetModel",
            "conditioning_embedding_out_channels": [16, 16, 32, 32],
            "controlnet_conditioning_channel_order": "rgb",
            "global_pool_conditions": False,
        }
    }


def _t2i_adapter(kind: str, channels: list[int], *, pixels: int = 8, pictures: int = 3) -> dict[str, Config]:
    """A T2I-Adapter: its type, its channels at each level, its first square of pixels, its picture's channels."""
    return {
        "": {
            "_class_name": "T2IAdapter",
            "_diffusers_version": BASES[_SD]["unet"]["_diffusers_version"],
            "adapter_type": kind,
            "channels": channels,
            "downscale_factor": pixels,
            "in_channels": pictures,
            "num_res_blocks": 2,
        }
    }


PIPELINES: dict[str, dict[str, Config]] = {
    **{name: _changed(BASES[base], changes) for name, (base, changes) in _VARIANTS.items()},
    "tiny-controlnet-sd2": _controlnet("tiny-sd2"),
    "tiny-controlnet-sdxl": _controlnet("tiny-sdxl"),
    # As TencentARC published them: for SD 1 with a picture in colour or in grey, and for SDXL.
    "tiny-t2i-adapter": _t2i_adapter("full_adapter", [32, 64, 64]),
    "tiny-t2i-adapter-light": _t2i_adapter("light_adapter", [32, 64], pictures=1),
    "tiny-t2i-adapter-sdxl": _t2i_adapter("full_adapter_xl", [32, 64, 64, 64], pixels=16),
}


def origin(name: str, folder: str) -> str:
    """The checkpoint whose bytes a folder holds: the variant's own, or the one that it is a variant of."""
    if name not in _VARIANTS:
        return name
    base = _VARIANTS[name][0]
    return base if PIPELINES[name][folder] == BASES[base].get(folder) else name
