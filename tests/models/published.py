"""The configurations of well-known checkpoints, as their `config.json` files say, at an eighth of the width.

Only what decides the network's form is kept: fields at diffusers' defaults are left out. Facts by the checkpoints' own
model repositories and the papers that describe them; widths, heads and projections are divided so that ratios stay.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_CROSS, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP_CROSS, _UP = "CrossAttnUpBlock2D", "UpBlock2D"
_NORM_GROUPS = 8
# 320, 640, 1280 by eight.
_W1, _W2, _W4 = 40, 80, 160


def _unet(**fields: Any) -> Config:
    return {
        "_class_name": "UNet2DConditionModel",
        "norm_num_groups": _NORM_GROUPS,
        "block_out_channels": [_W1, _W2, _W4, _W4],
        "down_block_types": [_CROSS, _CROSS, _CROSS, _DOWN],
        "up_block_types": [_UP, _UP_CROSS, _UP_CROSS, _UP_CROSS],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 96,
        "sample_size": 64,
    } | fields


def _xl(**fields: Any) -> Config:
    return _unet(
        **{
            "block_out_channels": [_W1, _W2, _W4],
            "down_block_types": [_DOWN, _CROSS, _CROSS],
            "up_block_types": [_UP_CROSS, _UP_CROSS, _UP],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 256,
            "use_linear_projection": True,
            "transformer_layers_per_block": [1, 2, 10],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 6 * 32 + 160,
            "sample_size": 128,
        }
        | fields
    )


_SD2: Config = {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 128, "use_linear_projection": True}

UNETS: dict[str, Config] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _unet(),
    "stable-diffusion-v1-5/stable-diffusion-inpainting": _unet(in_channels=9),
    "timbrooks/instruct-pix2pix": _unet(in_channels=8),
    "SimianLuo/LCM_Dreamshaper_v7": _unet(time_cond_proj_dim=32),
    "stabilityai/stable-diffusion-2-1-base": _unet(**_SD2),
    "stabilityai/stable-diffusion-2-1": _unet(**_SD2, upcast_attention=True, sample_size=96),
    "stabilityai/stable-diffusion-2-inpainting": _unet(**_SD2, in_channels=9),
    "stabilityai/sd-turbo": _unet(**_SD2),
    # BK-SDM (Kim et al. 2023): one layer less in each block; Small without a middle, Tiny without the innermost level.
    "nota-ai/bk-sdm-base": _unet(layers_per_block=1),
    "segmind/small-sd": _unet(layers_per_block=1, mid_block_type=None),
    "segmind/tiny-sd": _unet(
        layers_per_block=1,
        mid_block_type=None,
        block_out_channels=[_W1, _W2, _W4],
        down_block_types=[_CROSS, _CROSS, _CROSS],
        up_block_types=[_UP_CROSS, _UP_CROSS, _UP_CROSS],
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": _xl(),
    "stabilityai/sdxl-turbo": _xl(sample_size=64),
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": _xl(in_channels=9),
    # 1280 channels of one text encoder, four levels, an aesthetic score.
    "stabilityai/stable-diffusion-xl-refiner-1.0": _xl(
        block_out_channels=[48, 96, 192, 192],
        down_block_types=[_DOWN, _CROSS, _CROSS, _DOWN],
        up_block_types=[_UP, _UP_CROSS, _UP_CROSS, _UP],
        attention_head_dim=[6, 12, 24, 24],
        cross_attention_dim=160,
        transformer_layers_per_block=4,
        projection_class_embeddings_input_dim=5 * 32 + 160,
    ),
    # Gupta et al. 2024: transformer blocks left out, a middle without attention.
    "segmind/SSD-1B": _xl(
        mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[1, 2, 4],
        reverse_transformer_layers_per_block=[[4, 4, 10], [2, 1, 1], 1],
    ),
    "segmind/Segmind-Vega": _xl(
        mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[1, 1, 2],
        reverse_transformer_layers_per_block=[[2, 2, 2], [1, 1, 1], 1],
    ),
    # Lee et al. 2023, KOALA: one layer less in each block, fewer transformer blocks, the smaller one without a middle.
    "etri-vilab/koala-1b": _xl(layers_per_block=1, transformer_layers_per_block=[1, 2, 6]),
    "etri-vilab/koala-700m": _xl(layers_per_block=1, transformer_layers_per_block=[1, 2, 5], mid_block_type=None),
}


def _controlnet(unet: Config) -> Config:
    kept = {name: value for name, value in unet.items() if name not in ("sample_size", "up_block_types")}
    return kept | {"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [16, 32, 96, 256]}


def _t2i_adapter(**fields: Any) -> Config:
    return {"_class_name": "T2IAdapter", "channels": [_W1, _W2, _W4, _W4], "in_channels": 3} | fields


CONTROLNETS: dict[str, Config] = {
    "lllyasviel/control_v11p_sd15_canny": _controlnet(UNETS["stable-diffusion-v1-5/stable-diffusion-v1-5"]),
    "thibaud/controlnet-sd21-canny-diffusers": _controlnet(UNETS["stabilityai/stable-diffusion-2-1"]),
    "diffusers/controlnet-canny-sdxl-1.0": _controlnet(UNETS["stabilityai/stable-diffusion-xl-base-1.0"]),
    # A ControlNet that is smaller than its UNet.
    "diffusers/controlnet-canny-sdxl-1.0-small": _controlnet(
        _xl(down_block_types=[_DOWN, _DOWN, _DOWN], mid_block_type="UNetMidBlock2D", transformer_layers_per_block=1)
    ),
    "diffusers/controlnet-canny-sdxl-1.0-mid": _controlnet(_xl(transformer_layers_per_block=[0, 0, 1])),
}

T2I_ADAPTERS: dict[str, Config] = {
    "TencentARC/t2iadapter_canny_sd14v1": _t2i_adapter(in_channels=1),
    "TencentARC/t2iadapter_depth_sd14v1": _t2i_adapter(),
    "TencentARC/t2iadapter_color_sd14v1": _t2i_adapter(
        adapter_type="light_adapter", channels=[_W1, _W2, _W4], num_res_blocks=4
    ),
    "TencentARC/t2i-adapter-canny-sdxl-1.0": _t2i_adapter(adapter_type="full_adapter_xl", downscale_factor=16),
}

VAES: dict[str, Config] = {
    name: {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [16, 32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": _NORM_GROUPS,
        **fields,
    }
    for name, fields in {
        "stabilityai/sd-vae-ft-mse": {},
        "madebyollin/sdxl-vae-fp16-fix": {"force_upcast": False, "scaling_factor": 0.13025},
        "stabilityai/stable-diffusion-3-medium": {
            "latent_channels": 16,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
        },
    }.items()
}
