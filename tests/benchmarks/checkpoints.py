"""Real-size checkpoints with random weights, as the published configurations say: SD 1.5, SD 2.1, SDXL base and
refiner, SD 3 medium without T5, a ControlNet beside SD 1.5 and SDXL, and a VAE whose decoder computes in thousands, as
SDXL's does.

    python -m tests.benchmarks.checkpoints sd15 ~/checkpoints/sd15

Weights are half-precision normals with variance 1/fan-in, written tensor by tensor. The tokenizer is the small one of
the built-in checkpoints; everything that costs time and memory is at real size.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.builtin import tiny
from sdbuild.checkpoints import sd3_topology, topology

Config = dict[str, Any]

_SCHEDULER: Config = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
_UNET: Config = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
_VAE: Config = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_TEXT: Config = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
_SD21_UNET = _UNET | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "sample_size": 96,
    "use_linear_projection": True,
}
_SD21_TEXT = _TEXT | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
_SDXL_UNET = _UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
_SDXL_TEXT_2 = _TEXT | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
_REFINER_UNET = _SDXL_UNET | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 5 * 256 + 1280,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
_SD3_TRANSFORMER: Config = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
}
_ENDOFTEXT, _EXCLAMATION = "<|endoftext|>", "!"


def _controlnet(unet: Config) -> Config:
    kept = {name: value for name, value in unet.items() if name not in ("sample_size", "up_block_types")}
    return kept | {"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": [16, 32, 96, 256]}


PIPELINES: Mapping[str, Mapping[str, Config]] = {
    "sd15": {
        "": {"_class_name": "StableDiffusionPipeline"},
        "scheduler": _SCHEDULER,
        "text_encoder": _TEXT,
        "tokenizer": {"padding": _ENDOFTEXT},
        "unet": _UNET,
        "vae": _VAE,
    },
    "sd21": {
        "": {"_class_name": "StableDiffusionPipeline"},
        "scheduler": _SCHEDULER | {"prediction_type": "v_prediction"},
        "text_encoder": _SD21_TEXT,
        "tokenizer": {"padding": _EXCLAMATION},
        "unet": _SD21_UNET,
        "vae": _VAE | {"sample_size": 768},
    },
    "sdxl": {
        "": {"_class_name": "StableDiffusionXLPipeline"},
        "scheduler": _SCHEDULER | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
        "text_encoder": _TEXT,
        "text_encoder_2": _SDXL_TEXT_2,
        "tokenizer": {"padding": _ENDOFTEXT},
        "tokenizer_2": {"padding": _EXCLAMATION},
        "unet": _SDXL_UNET,
        "vae": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025},
    },
    "sdxl-refiner": {
        "": {"_class_name": "StableDiffusionXLImg2ImgPipeline"},
        "scheduler": _SCHEDULER | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
        "text_encoder_2": _SDXL_TEXT_2,
        "tokenizer_2": {"padding": _EXCLAMATION},
        "unet": _REFINER_UNET,
    },
    "sd3": {
        "": {"_class_name": "StableDiffusion3Pipeline"},
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0,
        },
        "transformer": _SD3_TRANSFORMER,
    },
    "sd15-controlnet": {"controlnet": _controlnet(_UNET)},
    "sdxl-controlnet": {"controlnet": _controlnet(_SDXL_UNET)},
    "loud-vae": {"vae": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025}},
}
_LOUD = {"loud-vae": ("decoder.conv_in.weight", 300.0)}
"""Checkpoint → the weights that are larger than elsewhere, and by which factor."""

_SHAPES = {
    "UNet2DConditionModel": (topology.unet, "diffusion_pytorch_model.safetensors"),
    "ControlNetModel": (topology.controlnet, "diffusion_pytorch_model.safetensors"),
    "SD3Transformer2DModel": (sd3_topology.transformer, "diffusion_pytorch_model.safetensors"),
    "AutoencoderKL": (topology.vae, "diffusion_pytorch_model.safetensors"),
    "CLIPTextModel": (topology.clip_text, "model.safetensors"),
    "CLIPTextModelWithProjection": (topology.clip_text, "model.safetensors"),
}


def generate(name: str, out: Path) -> None:
    """Write the checkpoint `name` to `out`; parts that are there already are kept."""
    for folder, config in PIPELINES[name].items():
        directory = out / folder
        directory.mkdir(parents=True, exist_ok=True)
        if folder.startswith("tokenizer"):
            padding = config["padding"]
            tiny._write_folder("benchmark", folder, {"padding": padding}, directory)
        elif folder == "scheduler":
            (directory / "scheduler_config.json").write_text(json.dumps(config))
        elif folder == "":
            (directory / "model_index.json").write_text(json.dumps(config | _index(PIPELINES[name])))
        else:
            (directory / "config.json").write_text(json.dumps(config))
            shapes, file_name = _SHAPES[config.get("_class_name") or config["architectures"][0]]
            if not (directory / file_name).exists():
                write_weights(directory / file_name, shapes(config), _LOUD.get(name))


def _index(pipeline: Mapping[str, Config]) -> Config:
    """The entries of `model_index.json`: folder → library and class."""
    classes = {
        folder: config.get("_class_name") or config.get("architectures", [None])[0]
        for folder, config in pipeline.items()
    }
    libraries = {"text_encoder": "transformers", "text_encoder_2": "transformers"}
    found = {folder: [libraries.get(folder, "diffusers"), kind] for folder, kind in classes.items() if folder and kind}
    return found | {folder: ["transformers", "CLIPTokenizer"] for folder in pipeline if folder.startswith("tokenizer")}


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], loud: tuple[str, float] | None = None) -> None:
    """Write half-precision normals with variance 1/fan-in, norm weights near one, small biases."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.Generator(np.random.SFC64(0))
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = rng.standard_normal(shape, np.float32)
            if name.endswith("bias"):
                values *= 0.05
            elif len(shape) == 1:
                values = 1 + 0.1 * values
            else:
                values *= math.prod(shape[1:]) ** -0.5
            if loud and name == loud[0]:
                values *= loud[1]
            file.write(values.astype(np.float16).tobytes())
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*PIPELINES])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    generate(arguments.name, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
