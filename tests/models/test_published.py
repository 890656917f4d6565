"""The configurations of well-known checkpoints build: every parameter that diffusers has is ours, of the same size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from sdbuild.checkpoints.facts import CheckpointFacts, ComponentFacts, read_component_facts
from sdbuild.models.build import build
from tests.models.published import CONTROLNETS, T2I_ADAPTERS, UNETS, VAES

SIZE = {"latent_height": 64, "latent_width": 64}


def saved(config: dict[str, Any], folder: Path) -> Path:
    """A checkpoint of zeros that takes no room on the disk: diffusers says which tensors there are."""
    import diffusers

    with torch.device("meta"):
        model = getattr(diffusers, config["_class_name"]).from_config(config)
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.mark.parametrize("name", UNETS)
def test_unet(name: str, tmp_path: Path) -> None:
    config = UNETS[name]
    model = build("unet", saved(config, tmp_path), controlnet_ready=True, **SIZE)
    shapes = {spec.name: spec.shape for spec in model.inputs}
    assert shapes["sample"] == (2, config.get("in_channels", 4), 64, 64)
    assert shapes["encoder_hidden_states"] == (2, config["cross_attention_dim"], 1, 77)
    assert ("timestep_cond" in shapes) == ("time_cond_proj_dim" in config)
    ids = 5 if "refiner" in name else 6
    assert shapes.get("time_ids", (2, ids)) == (2, ids)
    meta = [torch.empty(shape, device="meta") for shape in shapes.values()]
    (noise,) = model.module(*meta)
    assert noise.shape == (2, 4, 64, 64)


@pytest.mark.parametrize("name", CONTROLNETS)
def test_controlnet(name: str, tmp_path: Path) -> None:
    model = build("controlnet", saved(CONTROLNETS[name], tmp_path), **SIZE)
    residuals = model.module(*(torch.empty(spec.shape, device="meta") for spec in model.inputs))
    assert [tuple(residual.shape) for residual in residuals] == [spec.shape for spec in model.outputs]
    assert len(residuals) == (10 if "sdxl" in name else 13)


@pytest.mark.parametrize("name", T2I_ADAPTERS)
def test_t2i_adapter(name: str, tmp_path: Path) -> None:
    """Its features are what the UNet that it was trained for takes, and the UNet takes no others."""
    xl = "sdxl" in name
    model = "stabilityai/stable-diffusion-xl-base-1.0" if xl else "stable-diffusion-v1-5/stable-diffusion-v1-5"
    for folder in ("adapter", "unet"):
        (tmp_path / folder).mkdir()
    family = "sdxl" if xl else None
    adapter = build("t2i_adapter", saved(T2I_ADAPTERS[name], tmp_path / "adapter"), family=family, **SIZE)
    features = adapter.module(*(torch.empty(spec.shape, device="meta") for spec in adapter.inputs))
    assert [tuple(feature.shape) for feature in features] == [spec.shape for spec in adapter.outputs]
    unet = build("unet", saved(UNETS[model], tmp_path / "unet"), adapter_ready=True, **SIZE)
    taken = [(spec.name, spec.shape[1:]) for spec in unet.inputs if spec.name.startswith("additional_feature_")]
    assert [(spec.name, spec.shape[1:]) for spec in adapter.outputs] == taken
    (noise,) = unet.module(*(torch.empty(spec.shape, device="meta") for spec in unet.inputs))
    assert noise.shape == (2, 4, 64, 64)


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
@pytest.mark.parametrize("name", VAES)
def test_vae(name: str, component: str, tmp_path: Path) -> None:
    model = build(component, saved(VAES[name], tmp_path), **SIZE)
    (result,) = model.module(*(torch.empty(spec.shape, device="meta") for spec in model.inputs))
    assert tuple(result.shape) == model.outputs[0].shape


@pytest.mark.parametrize("name", UNETS)
def test_task_and_guidance_are_read_from_the_configuration(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(UNETS[name]))
    facts = read_component_facts({"unet": tmp_path})
    assert isinstance(facts, CheckpointFacts)
    assert isinstance(facts.folders["unet"], ComponentFacts)
    wanted = "inpainting" if "inpainting" in name else "instruct-pix2pix" if "pix2pix" in name else "text-to-image"
    assert facts.task == wanted
    assert (facts.guidance_embedding is not None) == ("LCM" in name)
