"""Checkpoint facts from JSON and safetensors headers alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sdbuild.builtin.tiny import generate
from sdbuild.checkpoints.facts import known_facts, read_checkpoint_facts, read_component_facts
from sdbuild.families import FAMILIES, Family
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.references import ModelReference
from sdbuild.recipe.vocabulary import Component

PUBLISHED = dict(FAMILIES[Family.SD1].published.configs["unet"])
SD1_UNET = {"cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]}
SD2_UNET = {"cross_attention_dim": 1024, "block_out_channels": [320, 640, 1280, 1280], "use_linear_projection": True}
SDXL_UNET = {
    "cross_attention_dim": 2048,
    "block_out_channels": [320, 640, 1280],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER_UNET = SDXL_UNET | {
    "cross_attention_dim": 1280,
    "block_out_channels": [384, 768, 1536, 1536],
    "projection_class_embeddings_input_dim": 2560,
}
TINY_SDXL = SDXL_UNET | {
    "cross_attention_dim": 64,
    "block_out_channels": [32, 64],
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def pipeline(root: Path, unet: dict[str, object], **folders: object) -> Path:
    index: dict[str, object] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.20.0"}
    for name, config in {"unet": unet, "vae": {}, "text_encoder": {}, **folders}.items():
        index[name] = ["diffusers", "Some"] if config is not None else [None, None]
        if config is not None:
            write_json(root / name / "config.json", config)
    write_json(root / "model_index.json", index)
    return root


@pytest.mark.parametrize(
    ("unet", "second", "family"),
    [
        (SD1_UNET, None, "sd1"),
        (SD2_UNET, None, "sd2"),
        (SDXL_UNET, {"projection_dim": 1280}, "sdxl"),
        (REFINER_UNET, {"projection_dim": 1280}, "sdxl-refiner"),
        (TINY_SDXL, {"projection_dim": 32}, "sdxl"),
        (TINY_SDXL | {"projection_class_embeddings_input_dim": 72}, {"projection_dim": 32}, "sdxl-refiner"),
        (SD1_UNET | {"cross_attention_dim": 32}, None, "sd1"),
        (SD2_UNET | {"cross_attention_dim": 32}, None, "sd2"),
        (SD1_UNET | {"addition_embed_type": "image"}, None, None),
    ],
)
def test_families(tmp_path: Path, unet: dict[str, object], second: object, family: str | None) -> None:
    assert read_checkpoint_facts(pipeline(tmp_path, unet, text_encoder_2=second)).family == family


def test_stable_diffusion_3(tmp_path: Path) -> None:
    write_json(tmp_path / "transformer" / "config.json", {"_class_name": "SD3Transformer2DModel"})
    assert read_checkpoint_facts(tmp_path).family == "sd3"


def test_components_are_those_of_the_index(tmp_path: Path) -> None:
    facts = read_checkpoint_facts(pipeline(tmp_path, SD1_UNET, safety_checker=None))
    assert facts.components == {
        Component.TEXT_ENCODER,
        Component.UNET,
        Component.VAE_DECODER,
        Component.VAE_ENCODER,
    }


def test_only_the_index_tells_the_components(tmp_path: Path) -> None:
    parts = {name: ["diffusers", "X"] for name in ("unet", "vae", "text_encoder", "text_encoder_2")}
    write_json(tmp_path / "model_index.json", {"_class_name": "StableDiffusionXLPipeline", **parts})
    facts = read_checkpoint_facts(tmp_path)
    assert facts.family == "sdxl"
    assert Component.TEXT_ENCODER_2 in facts.components
    assert facts.parameters("unet") is None


def test_parameters_are_counted_over_shards_of_one_variant(tmp_path: Path) -> None:
    root = pipeline(tmp_path, SD1_UNET)
    write_weights(root / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors", {"a": [2, 3], "b": [4]})
    write_weights(root / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors", {"c": []})
    write_weights(root / "unet" / "diffusion_pytorch_model.fp16.safetensors", {"a": [2, 3], "b": [4], "c": []})
    write_weights(root / "unet" / "adapter.safetensors", {"z": [1000]})
    assert read_checkpoint_facts(root).parameters("unet") == 11


def test_a_configuration_stands_in_for_missing_weights(tmp_path: Path) -> None:
    assert read_checkpoint_facts(pipeline(tmp_path / "a", PUBLISHED)).parameters("unet") == 859_520_964
    # One that does not say which blocks the network has tells no count; one that says it in no known way is refused.
    assert read_checkpoint_facts(pipeline(tmp_path / "b", SD1_UNET)).parameters("unet") is None
    strange = {**PUBLISHED, "block_out_channels": "many"}
    with pytest.raises(RecipeError, match="`block_out_channels` is 'many', and must be a list"):
        read_checkpoint_facts(pipeline(tmp_path / "c", strange))


def test_loose_folders(tmp_path: Path) -> None:
    root = pipeline(tmp_path, SD2_UNET)
    write_json(root / "scheduler" / "scheduler_config.json", {"prediction_type": "v_prediction"})
    facts = read_component_facts(
        {"unet": root / "unet", "vae_decoder": root / "vae"}, scheduler=root / "scheduler" / "scheduler_config.json"
    )
    assert facts.family == "sd2"
    assert facts.components == {Component.UNET, Component.VAE_DECODER, Component.VAE_ENCODER}
    assert facts.prediction_type == "v_prediction"


@pytest.mark.parametrize(("name", "family"), [("tiny-sd", "sd1"), ("tiny-sd2", "sd2"), ("tiny-sdxl", "sdxl")])
def test_builtin_checkpoints(tmp_path: Path, name: str, family: str) -> None:
    generate(name, tmp_path)
    facts = read_checkpoint_facts(tmp_path)
    assert facts.family == family
    assert (Component.TEXT_ENCODER_2 in facts.components) is (family == "sdxl")
    assert (facts.parameters("unet") or 0) > 1000


def test_what_is_known_before_any_download() -> None:
    facts = known_facts(ModelReference(version="stabilityai/stable-diffusion-xl-base-1.0"))
    assert facts is not None
    assert (facts.family, facts.parameters("unet")) == ("sdxl", 2_567_463_684)
    assert known_facts(ModelReference(version="somebody/something")) is None
    assert known_facts(ModelReference(version="./stabilityai/stable-diffusion-xl-base-1.0")) is None


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no diffusers pipeline"):
        read_checkpoint_facts(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 900) + b"{}", struct.pack("<Q", 2) + b"[]"],
)
def test_broken_weights_are_named(tmp_path: Path, data: bytes) -> None:
    root = pipeline(tmp_path, SD1_UNET)
    (root / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(data)
    with pytest.raises(RecipeError, match=r"unet/diffusion_pytorch_model\.safetensors"):
        read_checkpoint_facts(root)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_broken_json_is_named(tmp_path: Path, text: str) -> None:
    root = pipeline(tmp_path, SD1_UNET)
    (root / "unet" / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(RecipeError, match=r"unet/config\.json"):
        read_checkpoint_facts(root)
