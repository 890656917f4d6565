"""Tiny checkpoints in one file, and the same pipelines as diffusers reads them: by configurations written here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sdbuild.builtin import tiny
from sdbuild.builtin.tiny.tokenizer import VOCABULARY_SIZE
from tests.models import ldm

SDXL = replace(ldm.TINY_SDXL, vocabulary=VOCABULARY_SIZE)
SD1 = replace(ldm.TINY_SD1, vocabulary=VOCABULARY_SIZE)

MEAN, DEVIATION = [-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]
EDM = {"edm_mean": np.array(MEAN, "f4"), "edm_std": np.array(DEVIATION, "f4")}
COSXL = {"edm_vpred.sigma_max": np.array(120.0, "f4"), "edm_vpred.sigma_min": np.array(0.002, "f4")}
EMPTY: NDArray[Any] = np.zeros((0,), "f4")


def weights(network: ldm.Network) -> dict[str, NDArray[Any]]:
    """Weights with which signals keep their size."""
    generator = np.random.default_rng(5)
    made: dict[str, NDArray[Any]] = {}
    for name, shape in ldm.tensors(network).items():
        values = np.asarray(generator.standard_normal(shape), "f4").reshape(shape)
        if name.endswith("position_ids"):
            made[name] = np.arange(shape[-1], dtype=np.int64)[None]
        elif len(shape) > 1:
            made[name] = values / np.float32(np.prod(shape[1:])) ** 0.5
        else:
            gain = (
                "norm" in name or ".ln_" in name or "in_layers.0" in name or "out_layers.0" in name or "out.0" in name
            )
            made[name] = (1 if gain and name.endswith("weight") else 0) + np.float32(0.1) * values
    return made


def write(path: Path, network: ldm.Network, extra: dict[str, NDArray[Any]], metadata: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(values) for name, values in (weights(network) | extra).items()}
    save_file(tensors, path, {"format": "pt", **metadata})
    return path


_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", **_BETAS}
PNDM = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False, **_BETAS}


def _text(width: int, act: str, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": width // 64,
        "max_position_embeddings": 77,
        "projection_dim": width,
        "vocab_size": VOCABULARY_SIZE,
        "hidden_act": act,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _unet(**changes: Any) -> dict[str, Any]:
    return {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": [32, 64, 64],
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 64,
        "attention_head_dim": 8,
        **changes,
    }


_XL_UNET = _unet(
    block_out_channels=[64, 64, 128],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    cross_attention_dim=192,
    attention_head_dim=[1, 1, 2],
    transformer_layers_per_block=[1, 1, 2],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=6 * 8 + 128,
)


def _vae(**changes: Any) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [32, 32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "force_upcast": False,
        **changes,
    }


def configurations(folder: Path, family: str, scheduler: dict[str, Any], vae: dict[str, Any]) -> Path:
    """A pipeline of diffusers without weights, as its loader of single files wants it."""
    xl = family == "sdxl"
    tiny.generate(f"tiny-{'sdxl' if xl else 'sd'}", folder, ["tokenizer", *(["tokenizer_2"] if xl else [])])
    files: dict[str, Any] = {
        "scheduler/scheduler_config.json": scheduler,
        "unet/config.json": _XL_UNET if xl else _unet(),
        "vae/config.json": _vae(scaling_factor=0.13025 if xl else 0.18215) | vae,
        "text_encoder/config.json": _text(64, "quick_gelu", "CLIPTextModel"),
    }
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    if xl:
        files["text_encoder_2/config.json"] = _text(128, "gelu", "CLIPTextModelWithProjection")
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    for name, content in {**files, "model_index.json": index}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def read_by_diffusers(path: Path, configs: Path) -> Any:
    """The file as diffusers' own loader of single files reads it, with its own translation of names."""
    import diffusers

    family = json.loads((configs / "model_index.json").read_text())["_class_name"]
    plain = path.with_name(f"plain-{path.name}")
    shutil.copy(path, plain)
    parts = {} if "XL" in family else {"safety_checker": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, family).from_single_file(plain, config=str(configs), local_files_only=True, **parts)
    scheduler = json.loads((configs / "scheduler/scheduler_config.json").read_text())
    pipeline.scheduler = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
