"""Single-file checkpoints: every tensor is where diffusers' own conversion puts it, and the configuration fits."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdbuild.checkpoints.checkpoint import StoredTensor
from sdbuild.checkpoints.extraction import ExtractError, extract
from sdbuild.checkpoints.markers import read_markers
from sdbuild.checkpoints.single_file import OPEN_CLIP, SingleFile, SingleFileError, describe
from sdbuild.checkpoints.single_file_tensors import component_tensors, open_single_file
from sdbuild.checkpoints.write import write_safetensors
from sdbuild.models.errors import ModelError
from tests.models import ldm

PUBLISHED = {"sd1": ldm.SD1, "sd2": ldm.SD2, "sdxl": ldm.SDXL, "sdxl-refiner": ldm.REFINER}
TINY = {"sd1": ldm.TINY_SD1, "sd2": ldm.TINY_SD2, "sdxl": ldm.TINY_SDXL}
# Buffers of the libraries' modules that no checkpoint needs to hold.
BUFFERS = ("position_ids",)


def stored(network: ldm.Network) -> dict[str, StoredTensor]:
    """A checkpoint at full size: one number a tensor, repeated without memory."""
    shapes = ldm.tensors(network)
    return {
        name: StoredTensor(name, shape, "float32", np.broadcast_to(np.float32(index), shape), mapped=False)
        for index, (name, shape) in enumerate(shapes.items())
    }


def original(name: str, described: SingleFile) -> torch.nn.Module:
    """The library's module of a component, without memory."""
    config = described.folders[name].config
    with torch.device("meta"):
        if name == "unet":
            return UNet2DConditionModel.from_config(config)  # type: ignore[no-any-return]
        if name == "vae":
            return AutoencoderKL.from_config(config)  # type: ignore[no-any-return]
        kind = CLIPTextModelWithProjection if "WithProjection" in config["architectures"][0] else CLIPTextModel
        return kind(CLIPTextConfig(**config))  # type: ignore[no-any-return]


def converted(name: str, described: SingleFile, checkpoint: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The component as diffusers converts it."""
    checkpoint, folder = dict(checkpoint), described.folders[name]
    if name == "unet":
        return convert_ldm_unet_checkpoint(checkpoint, folder.config)  # type: ignore[no-any-return]
    if name == "vae":
        return convert_ldm_vae_checkpoint(checkpoint, folder.config)  # type: ignore[no-any-return]
    if folder.dialect == OPEN_CLIP:
        found = convert_open_clip_checkpoint(original(name, described), checkpoint, prefix=folder.prefix)
    else:
        found = convert_ldm_clip_checkpoint(checkpoint)
    return {key if key.startswith("text_") else f"text_model.{key}": value for key, value in found.items()}


def names_of(module: torch.nn.Module, text: bool) -> dict[str, tuple[int, ...]]:
    """Parameters and shapes under the names of files: transformers 5 drops the prefix of a tower in memory."""
    found = {name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(BUFFERS)}
    return {name if not text or name.startswith("text_") else f"text_model.{name}": s for name, s in found.items()}


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_checkpoints_fit_the_libraries_modules(family: str) -> None:
    tensors = stored(PUBLISHED[family])
    described = describe({name: tensor.shape for name, tensor in tensors.items()})
    assert described.family == family
    for name, folder in described.folders.items():
        ours = component_tensors(name, folder, tensors)
        module = original(name, described)
        assert {key: tensor.shape for key, tensor in ours.items()} == names_of(module, name.startswith("text"))
        checkpoint = {key: torch.from_numpy(tensor.raw) for key, tensor in tensors.items()}
        theirs = converted(name, described, checkpoint)
        for key, tensor in ours.items():
            assert tensor.raw.flat[0] == theirs[key].flatten()[0], key
    assert described.folders["vae"].parameters == 83_653_863


def test_the_configurations_are_the_published_ones() -> None:
    sd1, sd2, xl, refiner = (describe(ldm.tensors(network)) for network in PUBLISHED.values())
    unet = sd1.folders["unet"].config
    assert unet["block_out_channels"] == [320, 640, 1280, 1280]
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert (unet["attention_head_dim"], unet["cross_attention_dim"], unet["use_linear_projection"]) == (8, 768, False)
    assert sd1.folders["text_encoder"].config["hidden_act"] == "quick_gelu"
    assert sd1.folders["unet"].parameters == 859_520_964
    assert sd1.scheduler["_class_name"] == "PNDMScheduler"
    unet, text = sd2.folders["unet"].config, sd2.folders["text_encoder"].config
    assert (unet["attention_head_dim"], unet["cross_attention_dim"]) == ([5, 10, 20, 20], 1024)
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["hidden_act"]) == (23, 16, "gelu")
    assert sd2.prediction_type is None
    unet, text = xl.folders["unet"].config, xl.folders["text_encoder_2"].config
    assert (unet["transformer_layers_per_block"], unet["attention_head_dim"]) == ([1, 2, 10], [5, 10, 20])
    assert (unet["addition_time_embed_dim"], unet["projection_class_embeddings_input_dim"]) == (256, 2816)
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["projection_dim"]) == (32, 20, 1280)
    assert (xl.folders["vae"].config["scaling_factor"], xl.folders["vae"].config["force_upcast"]) == (0.13025, True)
    assert xl.folders["unet"].parameters == 2_567_463_684
    assert set(refiner.folders) == {"unet", "vae", "text_encoder_2"}
    unet = refiner.folders["unet"].config
    assert (unet["transformer_layers_per_block"], unet["addition_time_embed_dim"]) == ([1, 4, 4, 4], 256)
    assert refiner.folders["unet"].parameters == 2_259_526_660


@pytest.mark.parametrize(("channels", "family"), [(9, "sd1"), (8, "sd1"), (9, "sdxl")])
def test_other_inputs_are_read_from_the_shapes(channels: int, family: str) -> None:
    shapes = ldm.tensors(PUBLISHED[family])
    shapes["model.diffusion_model.input_blocks.0.0.weight"] = (320, channels, 3, 3)
    described = describe(shapes)
    assert (described.family, described.folders["unet"].config["in_channels"]) == (family, channels)


def test_what_the_unet_predicts() -> None:
    shapes = ldm.tensors(ldm.TINY_SDXL)
    assert describe(shapes).prediction_type == "epsilon"
    markers = read_markers(frozenset({*shapes, "v_pred"}), {}, lambda name: ())
    assert describe(shapes, markers=markers).scheduler["prediction_type"] == "v_prediction"
    assert describe(shapes, "epsilon", markers).scheduler["prediction_type"] == "epsilon"
    assert describe(shapes, "v_prediction").prediction_type == "v_prediction"


def random_checkpoint(network: ldm.Network, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.arange(77)[None]
        if name.endswith("position_ids")
        else torch.randn(shape, generator=generator).to(dtype)
        for name, shape in ldm.tensors(network).items()
    }


def save_ckpt(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    torch.save({"state_dict": dict(tensors), "global_step": 3, "epoch": 0}, path)


def save_old_ckpt(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    torch.save({"state_dict": dict(tensors)}, path, _use_new_zipfile_serialization=False)


WAYS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor], Path], None], torch.dtype]] = {
    "safetensors": ("model.safetensors", save_file, torch.float32),
    "half": ("model.safetensors", save_file, torch.float16),
    "bfloat16": ("model.safetensors", save_file, torch.bfloat16),
    "ckpt": ("model.ckpt", save_ckpt, torch.float16),
    "old-ckpt": ("model.ckpt", save_old_ckpt, torch.float32),
}


def take(tree: Path, component: str, out: Path, prediction: str | None = "epsilon") -> dict[str, torch.Tensor]:
    out.mkdir()
    extract(tree, component, prediction, out, lambda _, __: None)
    (weights,) = out.glob("*.safetensors")
    return load_file(weights)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("way", WAYS)
def test_every_tensor_is_the_one_that_diffusers_finds(family: str, way: str, tmp_path: Path) -> None:
    name, save, dtype = WAYS[way]
    tree = tmp_path / "tree"
    tree.mkdir()
    checkpoint = random_checkpoint(TINY[family], dtype)
    save(checkpoint, tree / name)
    described = describe(ldm.tensors(TINY[family]))
    for component in described.folders:
        ours = take(tree, component, tmp_path / component)
        theirs = converted(component, described, checkpoint)
        assert set(ours) == set(names_of(original(component, described), component.startswith("text")))
        for key, value in ours.items():
            assert value.dtype == dtype
            assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("family", TINY)
def test_diffusers_loads_what_was_taken_out_as_it_loads_the_file(family: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    save_file(random_checkpoint(TINY[family]), tree / "model.safetensors")
    for component, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        take(tree, component, tmp_path / component)
        theirs = kind.from_single_file(tree / "model.safetensors", config=str(tmp_path), subfolder=component)
        ours = kind.from_pretrained(tmp_path / component)
        for key, value in theirs.state_dict().items():
            assert torch.equal(value, ours.state_dict()[key]), key


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(ldm.TINY_SD1)
    (tmp_path / "a").mkdir()
    save_file(checkpoint, tmp_path / "a" / "model.safetensors")
    tensors = open_single_file(tmp_path / "a" / "model.safetensors")
    first, second = tmp_path / "first", tmp_path / "second"
    write_safetensors(first, tensors)
    write_safetensors(second, dict(reversed(tensors.items())))
    assert first.read_bytes() == second.read_bytes()


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {"state_dict": random_checkpoint(ldm.TINY_SD1), "callbacks": Malicious()}
    torch.save(state, tmp_path / "model.ckpt", pickle_module=pickle, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"(?s)model.ckpt: holds more than tensors.*could run code.*safetensors"):
        open_single_file(tmp_path / "model.ckpt")
    assert not (tmp_path / "executed").exists()


UNET = "model.diffusion_model."
Checkpoint = dict[str, torch.Tensor]


def without_unet(checkpoint: Checkpoint) -> None:
    for name in [name for name in checkpoint if name.startswith(UNET)]:
        del checkpoint[name]


def deeper_middle(checkpoint: Checkpoint) -> None:
    block = f"{UNET}middle_block.1.transformer_blocks."
    for name in [name for name in checkpoint if name.startswith(f"{block}0.")]:
        checkpoint[name.replace(f"{block}0.", f"{block}9.")] = checkpoint[name].clone()


FAULTS: dict[str, tuple[Callable[[Checkpoint], object], str]] = {
    "no-unet": (without_unet, "no UNet.*conditioner, first_stage_model"),
    "strange": (lambda c: c.update({f"{UNET}adapter.weight": torch.ones(2)}), "unknown tensors.*adapter.weight"),
    "truncated": (lambda c: c.pop(f"{UNET}out.2.weight"), "missing or has another shape.*out.2.weight"),
    "irregular": (deeper_middle, "blocks are not those of"),
    "upscaler": (
        lambda c: c.update({f"{UNET}label_emb.weight": c.pop(f"{UNET}label_emb.0.0.weight")}),
        "a class or a noise level",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_of_other_kinds_are_told_from_checkpoints(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    tree = tmp_path / "tree"
    tree.mkdir()
    checkpoint = random_checkpoint(ldm.TINY_SDXL)
    change(checkpoint)
    save_file(checkpoint, tree / "mine.safetensors")
    with pytest.raises(ExtractError, match=f"(?s)mine.safetensors: .*{message}"):
        take(tree, "unet", tmp_path / "unet")


def test_a_component_that_is_not_there_is_named(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    save_file(random_checkpoint(ldm.TINY_SD1), tree / "mine.safetensors")
    with pytest.raises(ExtractError, match="text_encoder, unet, vae, and no safety_checker"):
        take(tree, "safety_checker", tmp_path / "out")


def test_sd2_must_say_what_it_predicts(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    save_file(random_checkpoint(ldm.TINY_SD2), tree / "mine.safetensors")
    with pytest.raises(ExtractError, match="prediction_type is epsilon for the 512"):
        extract(tree, "scheduler", None, tmp_path, lambda _, __: None)
    extract(tree, "scheduler", "v_prediction", tmp_path, lambda _, __: None)
    assert '"prediction_type": "v_prediction"' in (tmp_path / "scheduler_config.json").read_text()


def test_an_empty_file_is_no_checkpoint() -> None:
    with pytest.raises(SingleFileError, match="its names start with: nothing"):
        describe({})


def test_a_projection_as_diffusers_own_script_writes_it() -> None:
    """`convert_diffusers_to_original_sdxl.py` keeps the layer's weight, where the original has its transpose."""
    network = ldm.TINY_SDXL
    values = {name: np.random.default_rng(1).normal(size=shape) for name, shape in ldm.tensors(network).items()}
    bare = "conditioner.embedders.1.model.text_projection"
    scripted = dict(values)
    scripted[f"{bare}.weight"] = scripted.pop(bare).T
    found = []
    for each in (values, scripted):
        held = {name: StoredTensor(name, v.shape, "float64", v, mapped=False) for name, v in each.items()}
        described = describe({name: tensor.shape for name, tensor in held.items()})
        folder = described.folders["text_encoder_2"]
        assert folder.config["projection_dim"] == 128
        found.append(component_tensors("text_encoder_2", folder, held)["text_projection.weight"].read())
    assert np.array_equal(*found)


def test_a_distilled_unet_with_fewer_layers_on_the_way_up_and_a_plain_middle() -> None:
    """As SSD-1B and Vega are: transformers left out here and there, and one residual block between the two ways."""
    shapes = ldm.tensors(replace(ldm.TINY_SDXL, layers=2, depths=(0, 1, 3)))
    dropped = (f"{UNET}middle_block.1.", f"{UNET}middle_block.2.")
    fewer = {0: 2, 2: 1}
    for block, depth in fewer.items():
        dropped += tuple(f"{UNET}output_blocks.{block}.1.transformer_blocks.{layer}." for layer in range(depth, 3))
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith(dropped)}
    described = describe(shapes)
    config = described.folders["unet"].config
    assert config["mid_block_type"] == "UNetMidBlock2D"
    assert config["reverse_transformer_layers_per_block"] == [[2, 3, 1], [1, 1, 1], [1, 1, 1]]
    held = {
        name: StoredTensor(name, shape, "float32", np.broadcast_to(np.float32(0), shape), mapped=False)
        for name, shape in shapes.items()
    }
    ours = component_tensors("unet", described.folders["unet"], held)
    assert {name: tensor.shape for name, tensor in ours.items()} == names_of(original("unet", described), False)
    for network in PUBLISHED.values():
        assert "reverse_transformer_layers_per_block" not in describe(ldm.tensors(network)).folders["unet"].config
