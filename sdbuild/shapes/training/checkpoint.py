"""The trained parts as checkpoints: half-precision safetensors in diffusers layout, the same bytes every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from sdbuild.builtin.tiny.configs import FEATURE_EXTRACTOR

_PARTS = ("unet", "vae", "text_encoder", "safety_checker")
_MACHINE_BOUND = ("_name_or_path", "dtype")
_SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "steps_offset": 1,
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write(parts: Path, pipeline: Path, controlnet: Path) -> None:
    """Write the pipeline's and the ControlNet's checkpoint from what training has left in `parts`."""
    for part in _PARTS:
        _write_model(parts / part, pipeline / part)
    _write_model(parts / "controlnet", controlnet)
    shutil.copytree(parts / "tokenizer", pipeline / "tokenizer", dirs_exist_ok=True)
    _write_json(pipeline / "scheduler" / "scheduler_config.json", _SCHEDULER)
    _write_json(pipeline / "feature_extractor" / "preprocessor_config.json", FEATURE_EXTRACTOR)
    _write_json(pipeline / "model_index.json", _INDEX)


def _write_model(trained: Path, out: Path) -> None:
    (weights,) = trained.glob("*.safetensors")
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in sorted(load_file(weights).items())}
    save_file(tensors, out / weights.name, metadata={"format": "pt"})
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    for key in _MACHINE_BOUND:
        config.pop(key, None)
    _write_json(out / "config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")
