"""Every marker, schedule and latent space of a source reaches the bundle, and its picture is diffusers' own.

The other reading is diffusers: its loader of single files and its pipelines, with the scheduler that the marker's
authors draw with (ComfyUI, comfy/supported_models.py; diffusers, loaders/single_file_utils.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.bundle.document import read_document
from sdbuild.bundle.linter import lint_bundle
from sdbuild.pipeline import Pipeline
from tests.pipeline import single_files as files
from tests.pipeline.originals import PROMPT, likeness, original
from tests.pipeline.studio import FLOAT32_XL, Studio
from tests.pipeline.test_families import figures_of

ALIKE_DB = 50.0
SIZE = {"height": 64, "width": 64}
_V = {"prediction_type": "v_prediction"}
_ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
_EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
_COS = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0}
_LATENTS = {"latents_mean": files.MEAN, "latents_std": files.DEVIATION, "scaling_factor": 0.5}

# Name → tensors beside the weights, metadata, the scheduler and the VAE's settings that they mean.
MARKERS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, files.EULER, {}),
    "v-pred": ({"v_pred": files.EMPTY}, {}, files.EULER | _V, {}),
    "ztsnr": ({"v_pred": files.EMPTY, "ztsnr": files.EMPTY}, {}, files.EULER | _V | _ZERO, {}),
    "modelspec": ({}, {"modelspec.predict_key": "v"}, files.EULER | _V, {}),
    "playground": (files.EDM, {}, _EDM | {"prediction_type": "epsilon"}, _LATENTS),
    "cosxl": (files.COSXL, {}, _COS | _V | {"sigma_schedule": "exponential"}, {}),
}
_XL = f"""
    model: {{version: ../checkpoints/NAME.safetensors}}
    tokenizer: {{version: "builtin:tiny-sdxl"}}
    components: [text_encoder, text_encoder_2, unet, vae_decoder]
    precision: {FLOAT32_XL}
"""
_STATED = {
    "lightning": ("{timestep_spacing: trailing}", {"timestep_spacing": "trailing"}),
    "ddim": (
        "{_class_name: DDIMScheduler, rescale_betas_zero_snr: true, prediction_type: v_prediction, "
        "timestep_spacing: trailing}",
        {"_class_name": "DDIMScheduler", **_V, **_ZERO},
    ),
    "edm": (
        "{_class_name: EDMEulerScheduler, sigma_min: 0.002, sigma_max: 80.0, sigma_data: 0.5}",
        {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
    ),
    "karras": ("{use_karras_sigmas: true}", {"use_karras_sigmas": True}),
}
_DIRECTORY = f"""
    model: {{version: ../checkpoints/MODEL}}
    components: [text_encoder, text_encoder_2, unet, vae_decoder]
    precision: {FLOAT32_XL}
"""
RECIPES = {
    **{name: _XL.replace("NAME", name) for name in MARKERS},
    **{
        f"stated-{name}": _DIRECTORY.replace("MODEL", "tiny-sdxl") + f"    scheduler: {text}\n"
        for name, (text, _) in _STATED.items()
    },
    "stated-velocity": _DIRECTORY.replace("MODEL}", "tiny-sdxl, prediction_type: v_prediction}"),
    "statistics": _DIRECTORY.replace("MODEL", "statistics").replace("vae_decoder]", "vae_decoder, vae_encoder]")
    + "    allow: []\n",
    "sd1": """
    model: {version: ../checkpoints/sd1.safetensors}
    tokenizer: {version: "builtin:tiny-sd"}
    components: [text_encoder, unet, vae_decoder]
    precision: {text_encoder: float32, unet: float32, vae_decoder: float32}
    """,
}
RECIPES["statistics"] = (
    RECIPES["statistics"]
    .replace("    allow: []\n", "")
    .replace("vae_decoder: float32}", "vae_decoder: float32, vae_encoder: float32}")
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = Studio(tmp_path_factory.mktemp("sources"), RECIPES, latent="{height: 8, width: 8}")
    folder = studio.root / "checkpoints"
    for name, (extra, metadata, scheduler, vae) in MARKERS.items():
        files.write(folder / f"{name}.safetensors", files.SDXL, extra, metadata)
        files.configurations(folder / f"{name}-configs", "sdxl", scheduler, vae)
    files.write(folder / "sd1.safetensors", files.SD1, {}, {})
    files.configurations(folder / "sd1-configs", "sd1", files.PNDM, {})
    shutil.copytree(studio.checkpoint("tiny-sdxl"), folder / "statistics")
    config = folder / "statistics/vae/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | _LATENTS))
    return studio


def drawn(bundle: Path) -> list[Any]:
    # As diffusers does where nothing is said of a negative prompt.
    return Pipeline.from_bundle(bundle)(
        PROMPT, negative_prompt="blurry", steps=4, seed=3, guidance_scale=3.0, client="diffusers", rng="torch"
    )


def expected(pipeline: Any, **parts: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    sizes = {"original_size": (64, 64), "target_size": (64, 64)} if "XL" in type(pipeline).__name__ else {}
    called = {"num_inference_steps": 4, "guidance_scale": 3.0, "generator": generator, **SIZE, **sizes, **parts}
    pictures: list[Any] = pipeline(PROMPT, negative_prompt="blurry", **called).images
    return pictures


@pytest.mark.parametrize("name", MARKERS)
def test_a_single_files_markers(sources: Studio, name: str) -> None:
    bundle = sources.bundle(name)
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    _, _, scheduler, vae = MARKERS[name]
    told = document["scheduler"] | {"prediction_type": document["checkpoint_prediction_type"]}
    assert {key: told[key] for key in scheduler} == scheduler
    assert document["vae"]["scaling_factor"] == vae.get("scaling_factor", 0.13025)
    folder = sources.root / "checkpoints"
    theirs = files.read_by_diffusers(folder / f"{name}.safetensors", folder / f"{name}-configs")
    assert likeness(drawn(bundle), expected(theirs)) >= ALIKE_DB


def test_a_single_file_of_sd1(sources: Studio) -> None:
    folder = sources.root / "checkpoints"
    theirs = files.read_by_diffusers(folder / "sd1.safetensors", folder / "sd1-configs")
    assert likeness(drawn(sources.bundle("sd1")), expected(theirs)) >= ALIKE_DB


@pytest.mark.parametrize("name", _STATED)
def test_a_schedule_that_a_recipe_states(sources: Studio, name: str) -> None:
    bundle = sources.bundle(f"stated-{name}")
    assert lint_bundle(bundle) == []
    document = read_document(bundle)
    stated = _STATED[name][1]
    told = document["scheduler"] | {"prediction_type": document["checkpoint_prediction_type"]}
    assert {key: told[key] for key in stated} == stated
    import diffusers

    theirs = original("StableDiffusionXLPipeline", sources.checkpoint("tiny-sdxl"))
    class_name = stated.get("_class_name", type(theirs.scheduler).__name__)
    changes = {key: value for key, value in stated.items() if key != "_class_name"}
    theirs.scheduler = getattr(diffusers, class_name).from_config(theirs.scheduler.config, **changes)
    assert likeness(drawn(bundle), expected(theirs)) >= ALIKE_DB


def test_what_a_recipe_says_that_a_directory_predicts(sources: Studio) -> None:
    bundle = sources.bundle("stated-velocity")
    assert read_document(bundle)["checkpoint_prediction_type"] == "v_prediction"
    theirs = original("StableDiffusionXLPipeline", sources.checkpoint("tiny-sdxl"))
    theirs.scheduler = type(theirs.scheduler).from_config(theirs.scheduler.config, **_V)
    assert likeness(drawn(bundle), expected(theirs)) >= ALIKE_DB


def test_a_vaes_statistics_are_in_its_models(sources: Studio) -> None:
    bundle = sources.bundle("statistics", "on")
    document = read_document(bundle)
    stated = document["vae"]["statistics_in_models"]
    assert stated == {"latents_mean": files.MEAN, "latents_std": files.DEVIATION}
    assert document["extensions"] == []
    for part, output in (("vae_decoder", "image"), ("vae_encoder", "latent")):
        assert figures_of(bundle)[f"convert-{part}"][output]["structure_db"] > 100
    theirs = original("StableDiffusionXLPipeline", sources.root / "checkpoints/statistics")
    assert likeness(drawn(bundle), expected(theirs)) >= ALIKE_DB
    # Without them, as it was, the picture is another.
    plain = original("StableDiffusionXLPipeline", sources.root / "checkpoints/statistics")
    plain.vae.register_to_config(latents_mean=None, latents_std=None)
    assert likeness(drawn(bundle), expected(plain)) < 30
