"""Files of one network: every tensor is where diffusers' own readers put it, with the configuration of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file

from sdbuild.checkpoints.extraction import ExtractError, extract_part
from sdbuild.checkpoints.tiny_autoencoder import tiny_config, tiny_shapes
from sdbuild.models.build import build
from sdbuild.models.original import reference
from tests.checkpoints.adapters import Tensors, random
from tests.models import ldm
from tests.models.conftest import randomise

NETWORKS = {"sd1": ldm.TINY_SD1, "sdxl": ldm.TINY_SDXL}
UNET, VAE = "model.diffusion_model.", "first_stage_model."


def whole(network: ldm.Network) -> Tensors:
    return {name: random(*shape, seed=index) for index, (name, shape) in enumerate(ldm.tensors(network).items())}


def inside(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def base_of(network: ldm.Network, folder: Path, tensors: Tensors) -> dict[str, Any]:
    """The pipeline's configurations, as its index has them."""
    from sdbuild.checkpoints.single_file import describe

    described = describe({name: tuple(tensor.shape) for name, tensor in tensors.items()}, "epsilon")
    configs = {}
    for name, each in described.folders.items():
        configs[name] = dict(each.config)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(configs[name]))
    return configs


def take(component: str, tensors: Tensors, base: Path, tmp_path: Path, suffix: str = "safetensors") -> Path:
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    out.mkdir()
    if suffix == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tree / "mine.safetensors")
    else:
        torch.save({"state_dict": tensors}, tree / f"mine.{suffix}")
    extract_part(tree, component, base, out, lambda _, __: None)
    return out


def tensors_of(folder: Path) -> Tensors:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].reshape(tensor.shape), tensor), name


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("prefix", ["", UNET, "diffusion_model."])
def test_a_unet_in_the_original_layout(prefix: str, suffix: str, tmp_path: Path) -> None:
    tensors = whole(ldm.TINY_SDXL)
    config = base_of(ldm.TINY_SDXL, tmp_path / "base", tensors)["unet"]
    own = {f"{prefix}{name}": tensor for name, tensor in inside(tensors, UNET).items()}
    out = take("unet", own, tmp_path / "base", tmp_path, suffix)
    same(tensors_of(out), convert_ldm_unet_checkpoint(dict(tensors), config))
    assert UNet2DConditionModel.from_pretrained(out).config.cross_attention_dim == config["cross_attention_dim"]


@pytest.mark.parametrize("prefix", ["", "unet.", "module."])
def test_a_unet_in_diffusers_layout(prefix: str, tmp_path: Path) -> None:
    """As DMD2, Lightning and Hyper come; one for inpainting, so that the input is the file's own."""
    tensors = whole(ldm.TINY_SD1)
    config = base_of(ldm.TINY_SD1, tmp_path / "base", tensors)["unet"]
    model = randomise(UNet2DConditionModel.from_config({**config, "in_channels": 9}))
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    out = take("unet", state, tmp_path / "base", tmp_path)
    same(tensors_of(out), model.state_dict())
    assert json.loads((out / "config.json").read_text())["in_channels"] == 9
    build("unet", out, latent_height=8, latent_width=8)


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("prefix", ["", VAE, "vae."])
def test_a_vae_in_the_original_layout(prefix: str, family: str, tmp_path: Path) -> None:
    tensors = whole(NETWORKS[family])
    base_of(NETWORKS[family], tmp_path / "base", tensors)
    own = {f"{prefix}{name}": tensor for name, tensor in inside(tensors, VAE).items()}
    out = take("vae", own, tmp_path / "base", tmp_path, "pt")
    config = json.loads((out / "config.json").read_text())
    assert config["scaling_factor"] == {"sd1": 0.18215, "sdxl": 0.13025}[family]
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "whole.safetensors")
    theirs = AutoencoderKL.from_single_file(tmp_path / "whole.safetensors", config=str(out))
    same(tensors_of(out), theirs.state_dict())


def test_a_vae_in_diffusers_layout_with_other_levels(tmp_path: Path) -> None:
    tensors = whole(ldm.TINY_SD1)
    config = base_of(ldm.TINY_SD1, tmp_path / "base", tensors)["vae"]
    levels = {"block_out_channels": [32, 64], "down_block_types": ["DownEncoderBlock2D"] * 2}
    levels["up_block_types"] = ["UpDecoderBlock2D"] * 2
    model = randomise(AutoencoderKL.from_config({**config, **levels, "layers_per_block": 1, "scaling_factor": 0.5}))
    out = take("vae", model.state_dict(), tmp_path / "base", tmp_path)
    same(tensors_of(out), model.state_dict())
    taken = AutoencoderKL.from_pretrained(out)
    assert (taken.config.block_out_channels, taken.config.scaling_factor) == ([32, 64], 0.18215)


def original_controlnet(network: ldm.Network) -> Tensors:
    """Zhang et al.'s names: a UNet's first half, a hint's encoder, and a convolution of zeros for each result."""
    first = {
        name: tensor
        for name, tensor in inside(whole(network), UNET).items()
        if not name.startswith(("output_blocks", "out."))
    }
    widths = (16, 16, 32, 32, 96, 96, 256, network.channels[0])
    inputs = (3, *widths[:-1])
    for index, (before, after) in enumerate(zip(inputs, widths, strict=True)):
        first[f"input_hint_block.{2 * index}.weight"] = random(after, before, 3, 3, seed=index)
        first[f"input_hint_block.{2 * index}.bias"] = random(after, seed=index)
    results = [network.channels[0]]
    for level, channels in enumerate(network.channels):
        results += [channels] * (network.layers + (level + 1 < len(network.channels)))
    for index, width in enumerate(results):
        first[f"zero_convs.{index}.0.weight"] = random(width, width, 1, 1, seed=index)
        first[f"zero_convs.{index}.0.bias"] = random(width, seed=index)
    first["middle_block_out.0.weight"] = random(network.channels[-1], network.channels[-1], 1, 1)
    first["middle_block_out.0.bias"] = random(network.channels[-1])
    return first


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("prefix", ["", "control_model."])
def test_a_controlnet_in_the_original_layout(prefix: str, family: str, tmp_path: Path) -> None:
    network = NETWORKS[family]
    base_of(network, tmp_path / "base", whole(network))
    own = {f"{prefix}{name}": tensor for name, tensor in original_controlnet(network).items()}
    out = take("controlnet", own, tmp_path / "base", tmp_path, "pth")
    config = json.loads((out / "config.json").read_text())
    zhang = original_controlnet(network)
    theirs = convert_controlnet_checkpoint({f"control_model.{name}": tensor for name, tensor in zhang.items()}, config)
    if family == "sdxl":
        # diffusers' function leaves out the embedding of sizes, which its class has: no such files were published.
        for number, inner in ((1, "0"), (2, "2")):
            for kind in ("weight", "bias"):
                theirs[f"add_embedding.linear_{number}.{kind}"] = zhang[f"label_emb.0.{inner}.{kind}"]
    same(tensors_of(out), theirs)
    assert list(ControlNetModel.from_pretrained(out).config.conditioning_embedding_out_channels) == [16, 32, 96, 256]
    build("controlnet", out, latent_height=8, latent_width=8)


def test_a_controlnet_in_diffusers_layout(tmp_path: Path) -> None:
    network = ldm.TINY_SD1
    config = base_of(network, tmp_path / "base", whole(network))["unet"]
    first = {name: value for name, value in config.items() if name not in ("sample_size", "up_block_types")}
    model = randomise(ControlNetModel.from_config({**first, "conditioning_embedding_out_channels": [8, 16]}))
    out = take("controlnet", model.state_dict(), tmp_path / "base", tmp_path)
    same(tensors_of(out), model.state_dict())
    assert json.loads((out / "config.json").read_text())["conditioning_embedding_out_channels"] == [8, 16]


def tiny(channels: int = 4) -> AutoencoderTiny:
    return randomise(AutoencoderTiny(latent_channels=channels))  # type: ignore[return-value]


def test_taesds_tensors_are_those_of_diffusers_class() -> None:
    model = tiny(16)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert tiny_shapes(tiny_config(shapes, "taesd")) == shapes
    assert tiny_config(shapes, "taesd")["latent_channels"] == 16


@pytest.mark.parametrize("component", ["vae_decoder", "vae_encoder"])
@pytest.mark.parametrize("half", [None, "decoder", "encoder"])
def test_taesd(half: str | None, component: str, tmp_path: Path) -> None:
    model = tiny()
    state = model.state_dict()
    if half is not None:
        # The author's own files: one half, whose decoder counts the clamp in front.
        state = {
            f"{int(name.split('.')[2]) + (half == 'decoder')}.{name.split('.', 3)[3]}": tensor
            for name, tensor in state.items()
            if name.startswith(half)
        }
    base_of(ldm.TINY_SD1, tmp_path / "base", whole(ldm.TINY_SD1))
    out = take("vae", state, tmp_path / "base", tmp_path)
    config = json.loads((out / "config.json").read_text())
    assert (config["_class_name"], config["scaling_factor"], config["shift_factor"]) == ("AutoencoderTiny", 1.0, 0.0)
    if half is not None and not component.endswith(half):
        with pytest.raises(Exception, match="missing: "):
            build(component, out, latent_height=8, latent_width=8)
        return
    built = build(component, out, latent_height=8, latent_width=8)
    if component == "vae_decoder":
        given = random(1, 4, 8, 8) * 30
        theirs = model.decode(given).sample
    else:
        given = random(1, 3, 64, 64) * 5
        theirs = model.encode(given).latents
    (ours,) = built.materialise()(given)
    assert built.outputs[0].shape == tuple(ours.shape)
    torch.testing.assert_close(ours[:, :4] if component == "vae_encoder" else ours, theirs, rtol=1e-4, atol=1e-4)
    if half is None:
        torch.testing.assert_close(ours, reference(component, out)(given)[0], rtol=1e-4, atol=1e-4)


def lacking(tensors: Tensors, part: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


SD1 = whole(ldm.TINY_SD1)
FAULTS: dict[str, tuple[str, Tensors, str]] = {
    "other-base": ("unet", inside(whole(ldm.TINY_SDXL), UNET), "has no .*, which the pipeline's unet has|asks for"),
    "not-a-unet": ("unet", inside(SD1, VAE), "holds no unet in a layout that is known here; its names start with: "),
    "cut-short": ("unet", lacking(inside(SD1, UNET), "output_blocks.0."), "has no up_blocks.0.resnets.0.conv1.bias"),
    "16-channels": (
        "vae",
        inside(SD1, VAE) | {"decoder.conv_in.weight": random(64, 16, 3, 3)},
        "holds a VAE of 16 latent channels, and the pipeline has 4: it is for another family",
    ),
    "union": ("controlnet", {"control_model.task_embedding": random(2)}, "a ControlNet of several conditions"),
    "control-lora": ("controlnet", {"lora_controlnet": random(1)}, "a Control-LoRA, which is the difference"),
    "lllite": ("controlnet", {"lllite_unet_input_blocks_1.down.0.weight": random(1)}, "a ControlNet-LLLite"),
    "strange": (
        "controlnet",
        original_controlnet(ldm.TINY_SD1) | {"extra.weight": random(1)},
        "holds tensors that no ControlNet has: extra.weight",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_the_pipeline(fault: str, tmp_path: Path) -> None:
    component, tensors, message = FAULTS[fault]
    base_of(ldm.TINY_SD1, tmp_path / "base", SD1)
    with pytest.raises(ExtractError, match=f"mine.safetensors: .*({message})"):
        take(component, tensors, tmp_path / "base", tmp_path)
