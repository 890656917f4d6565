"""Tiny random checkpoints of every family, saved by diffusers and transformers themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.builtin import tiny

_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 32,
}
_SDXL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "cross_attention_dim": 56,
}

# What distinguishes the families' UNets, at the smallest size that still shows it.
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"use_linear_projection": True, "attention_head_dim": (1, 2), "upcast_attention": True},
    "sdxl": _SDXL | {"projection_class_embeddings_input_dim": 6 * 8 + 32},
    "sdxl-refiner": _SDXL | {"projection_class_embeddings_input_dim": 5 * 8 + 32, "cross_attention_dim": 32},
    "lcm": {"time_cond_proj_dim": 16},
    "inpainting": {"in_channels": 9},
    "instruct-pix2pix": {"in_channels": 8},
    # SSD-1B and small-sd leave out the middle block, or its attention, and layers here and there.
    "no-mid-block": {"mid_block_type": None, "layers_per_block": (2, 1)},
    "plain-mid-block": {"mid_block_type": "UNetMidBlock2D"},
    "text-projection": {"encoder_hid_dim": 20, "encoder_hid_dim_type": "text_proj"},
    "only-cross-attention": {"only_cross_attention": (True, False)},
    "scale-shift": {"resnet_time_scale_shift": "scale_shift", "flip_sin_to_cos": False, "freq_shift": 1},
}


# Stable Diffusion 3, and 3.5 medium: normalised queries and keys, and a second attention in the first layers.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd3": {},
    "sd35": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
}


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every parameter away from what it starts as: ones, zeros and tiny numbers hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if "norm" in name:
                parameter.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise)
    return model


def save_unet(path: Path, family: str = "sd1", **changes: Any) -> Path:
    from diffusers import UNet2DConditionModel

    randomise(UNet2DConditionModel(**(_UNET | UNETS[family] | changes))).save_pretrained(path)
    return path


def save_transformer(path: Path, family: str = "sd3", **changes: Any) -> Path:
    from diffusers import SD3Transformer2DModel

    config: dict[str, Any] = {
        "sample_size": 16,
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 40,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 24,
        "pos_embed_max_size": 10,
    }
    randomise(SD3Transformer2DModel(**(config | TRANSFORMERS[family] | changes))).save_pretrained(path)
    return path


def save_t5(path: Path, **changes: Any) -> Path:
    from transformers import T5Config, T5EncoderModel

    config: dict[str, Any] = {
        "vocab_size": 100,
        "d_model": 32,
        "d_kv": 12,
        "d_ff": 48,
        "num_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
    }
    randomise(T5EncoderModel(T5Config(**(config | changes)))).save_pretrained(path)
    return path


def save_controlnet(path: Path, family: str = "sd1", **changes: Any) -> Path:
    from diffusers import ControlNetModel

    config = _UNET | UNETS[family] | {"conditioning_embedding_out_channels": (8, 16)} | changes
    for decoder_field in ("sample_size", "up_block_types"):
        del config[decoder_field]
    randomise(ControlNetModel(**config)).save_pretrained(path)
    return path


def save_t2i_adapter(path: Path, kind: str = "full_adapter", **changes: Any) -> Path:
    from diffusers import T2IAdapter

    config: dict[str, Any] = {
        "full_adapter": {"channels": [32, 64], "num_res_blocks": 1},
        "light_adapter": {"channels": [32], "num_res_blocks": 2, "in_channels": 1},
        "full_adapter_xl": {"channels": [32, 64, 64], "num_res_blocks": 1, "downscale_factor": 16},
    }[kind]
    randomise(T2IAdapter(adapter_type=kind, **(config | changes))).save_pretrained(path)
    return path


def save_vae(path: Path, **changes: Any) -> Path:
    from diffusers import AutoencoderKL

    config: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
    }
    randomise(AutoencoderKL(**(config | changes))).save_pretrained(path)
    return path


def save_text_encoder(path: Path, *, projected: bool = False, **changes: Any) -> Path:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config: dict[str, Any] = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "projection_dim": 24,
        "bos_token_id": 98,
        "eos_token_id": 99,
        "pad_token_id": 99,
    }
    model = CLIPTextModelWithProjection if projected else CLIPTextModel
    randomise(model(CLIPTextConfig(**(config | changes)))).save_pretrained(path)
    return path


def save_safety_checker(path: Path) -> Path:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = CLIPConfig(
        text_config=tower, vision_config=tower | {"image_size": 28, "patch_size": 14}, projection_dim=24
    )
    randomise(StableDiffusionSafetyChecker(config)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny checkpoint, by component and options; saved once a session."""
    savers = {
        "unet": save_unet,
        "transformer": save_transformer,
        "t5": save_t5,
        "controlnet": save_controlnet,
        "t2i_adapter": save_t2i_adapter,
        "vae": save_vae,
        "text_encoder": save_text_encoder,
        "safety_checker": save_safety_checker,
    }
    made: dict[str, Path] = {}

    def save(kind: str, *arguments: Any, **changes: Any) -> Path:
        key = repr((kind, arguments, sorted(changes.items())))
        if key not in made:
            made[key] = savers[kind](tmp_path_factory.mktemp(kind), *arguments, **changes)
        return made[key]

    return save


@pytest.fixture(autouse=True)
def _small_and_without_gradients() -> Iterator[None]:
    """Networks this small lose more to threads that wait for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a built-in checkpoint, once a module."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            tiny.generate(name, made[name])
        return made[name]

    return make
