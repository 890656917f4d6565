"""The streamed conversion gives the program and the weights of the stock path, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.coreml.convert import convert
from sdbuild.coreml.lowering.patches import half
from sdbuild.coreml.lowering.patches.patch import replaced
from sdbuild.coreml.package import Package
from sdbuild.models.build import build
from sdbuild.models.component import ComponentModel
from tests.coreml.stock import convert_stock, operations_of, program_of, weights_of
from tests.models.conftest import (
    save_controlnet,
    save_safety_checker,
    save_t5,
    save_text_encoder,
    save_transformer,
    save_unet,
    save_vae,
)

UNET = {"latent_height": 8, "latent_width": 8, "text_sequence_length": 7}
LEVEL: dict[str, Any] = {
    "block_out_channels": (32,),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "mid_block_type": None,
    "attention_head_dim": 2,
}
LEVELS: dict[str, Any] = LEVEL | {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}
ENCODER = {"block_out_channels": (32,), "down_block_types": ("DownEncoderBlock2D",), "latent_channels": 4}
VAE = ENCODER | {"up_block_types": ("UpDecoderBlock2D",)}


def assert_equal(
    model: ComponentModel, folder: Path, *, precision: str = "float16", deployment_target: str = "iOS16"
) -> None:
    options: dict[str, Any] = {"precision": precision, "deployment_target": deployment_target}
    options["float32_modules"] = model.float32_modules
    ours = folder / "Ours.mlpackage"
    in_place: list[bool] = []
    is_plain = half.is_plain
    with replaced(half, "is_plain", lambda function: in_place.append(is_plain(function)) or in_place[-1]):
        convert(model.module, model.inputs, model.outputs, model.weights, ours, **options)
    assert all(in_place), "a pass goes the slow way"
    stock = convert_stock(model, folder / "Stock.mlpackage", **options)
    assert program_of(Package.open(ours)) == program_of(stock)
    assert weights_of(Package.open(ours)) == weights_of(stock)


def initialised_unet(path: Path) -> Path:
    """Norms of ones and zeros: equal constants that passes share, and affine parts that passes drop."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config = LEVEL | {"block_out_channels": (128,), "sample_size": 8, "cross_attention_dim": 24}
    UNet2DConditionModel(**config).save_pretrained(path)
    return path


def unet(path: Path, family: str = "sd1", attention: str = "SPLIT_EINSUM", **options: Any) -> ComponentModel:
    config = LEVELS if attention == "ORIGINAL" else LEVEL
    if family == "sdxl":
        config = config | {"transformer_layers_per_block": 1}
    return build("unet", save_unet(path, family, **config), attention_implementation=attention, **(UNET | options))


def transformer(path: Path, family: str, **options: Any) -> ComponentModel:
    size = {"latent_height": 8, "latent_width": 12, "text_sequence_length": 5}
    return build("transformer", save_transformer(path, family, num_layers=2), **(size | options))


CASES: dict[str, Callable[[Path], ComponentModel]] = {
    "unet ORIGINAL": lambda path: unet(path, attention="ORIGINAL"),
    "unet SPLIT_EINSUM": unet,
    "unet SPLIT_EINSUM_V2": lambda path: unet(path, attention="SPLIT_EINSUM_V2", query_chunk=24),
    "unet SDPA": lambda path: unet(path, attention="SDPA"),
    "unet for ControlNet": lambda path: unet(path, controlnet_ready=True),
    "unet as initialised": lambda path: build("unet", initialised_unet(path), **UNET),
    "sd2 unet": lambda path: unet(path, "sd2"),
    "sdxl unet": lambda path: unet(path, "sdxl"),
    "controlnet": lambda path: build("controlnet", save_controlnet(path, **CONTROLNET), **UNET),
    "text encoder": lambda path: build("text_encoder", save_text_encoder(path, num_hidden_layers=2), family="sd1"),
    "sdxl text encoder": lambda path: build(
        "text_encoder_2", save_text_encoder(path, projected=True, num_hidden_layers=2)
    ),
    "sd3 transformer": lambda path: transformer(path, "sd3", attention_implementation="ORIGINAL"),
    "sd3.5 transformer": lambda path: transformer(path, "sd35"),
    "t5": lambda path: build("text_encoder_3", save_t5(path, num_layers=2)),
    "vae decoder": lambda path: build("vae_decoder", save_vae(path, **VAE), latent_height=4, latent_width=4),
    "vae encoder": lambda path: build("vae_encoder", save_vae(path, **VAE), latent_height=4, latent_width=4),
    "safety checker": lambda path: build("safety_checker", save_safety_checker(path), latent_height=8, latent_width=8),
}
CONTROLNET = {key: value for key, value in LEVEL.items() if key not in ("up_block_types", "mid_block_type")}
# Each target and precision with one UNet and one other component; the rest as by default.
OPTIONS = {
    "unet SPLIT_EINSUM_V2": {"precision": "float32"},
    "unet SDPA": {"deployment_target": "iOS18"},
    "text encoder": {"precision": "float32", "deployment_target": "iOS17"},
    "sd2 unet": {"deployment_target": "iOS17"},
    "sdxl unet": {"deployment_target": "iOS18"},
    "sd3 transformer": {"precision": "float32", "deployment_target": "iOS17"},
    "vae encoder": {"deployment_target": "iOS18"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_component(case: str, tmp_path: Path) -> None:
    assert_equal(CASES[case](tmp_path / "checkpoint"), tmp_path, **OPTIONS.get(case, {}))


def test_the_approximation_of_gelu_is_kept(tmp_path: Path) -> None:
    """The frontend's own translation takes it for the exact function, which is 60 dB away from it."""
    model = build("text_encoder_3", save_t5(tmp_path / "t5", num_layers=1), text_sequence_length=8)
    convert(
        model.module,
        model.inputs,
        model.outputs,
        model.weights,
        tmp_path / "T5.mlpackage",
        precision="float32",
        deployment_target="iOS16",
    )
    (mode,) = (
        operation.inputs["mode"].arguments[0].name
        for kind, _, operation in operations_of(Package.open(tmp_path / "T5.mlpackage"))
        if kind == "gelu"
    )
    constants = {name: operation for _, name, operation in operations_of(Package.open(tmp_path / "T5.mlpackage"))}
    value = constants[mode].attributes["val"].immediateValue.tensor.strings.values
    assert list(value) == ["TANH_APPROXIMATION"]


@pytest.mark.parametrize(
    ("stored", "precision"),
    [
        ("float16", "float16"),
        ("float16", "float32"),
        ("bfloat16", "float16"),
        ("bfloat16", "float32"),
        ("sharded", "float16"),
        ("pickled", "float16"),
    ],
)
def test_every_kind_of_checkpoint(stored: str, precision: str, tmp_path: Path) -> None:
    import torch
    from transformers import CLIPTextModel

    plain = save_text_encoder(tmp_path / "plain", num_hidden_layers=1)
    model = CLIPTextModel.from_pretrained(plain)
    if stored == "pickled":
        (tmp_path / "stored").mkdir()
        torch.save(model.state_dict(), tmp_path / "stored" / "pytorch_model.bin")
        (plain / "config.json").rename(tmp_path / "stored" / "config.json")
    elif stored == "sharded":
        model.save_pretrained(tmp_path / "stored", max_shard_size="20KB")
        assert (tmp_path / "stored" / "model.safetensors.index.json").exists()
    else:
        model.to(getattr(torch, stored)).save_pretrained(tmp_path / "stored")
    assert_equal(build("text_encoder", tmp_path / "stored", family="sd1"), tmp_path, precision=precision)
