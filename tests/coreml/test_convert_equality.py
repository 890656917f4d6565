"""The streamed conversion gives the program and the weights of the stock path, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.coreml.convert import convert
from sdbuild.coreml.package import Package
from sdbuild.models import ComponentModel, build
from tests.coreml.stock import convert_stock, program_of, weights_of
from tests.models.conftest import save_controlnet, save_safety_checker, save_text_encoder, save_unet, save_vae

UNET = {"latent_height": 8, "latent_width": 8, "text_sequence_length": 7}
SMALL: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "mid_block_type": None,
}


def assert_equal(
    model: ComponentModel, folder: Path, *, precision: str = "float16", deployment_target: str = "iOS16"
) -> None:
    options: dict[str, Any] = {"precision": precision, "deployment_target": deployment_target}
    options["float32_modules"] = model.float32_modules
    ours = folder / "Ours.mlpackage"
    convert(model.module, model.inputs, model.outputs, model.weights, ours, **options)
    stock = convert_stock(model, folder / "Stock.mlpackage", **options)
    assert program_of(Package.open(ours)) == program_of(stock)
    assert weights_of(Package.open(ours)) == weights_of(stock)


def default_initialised_unet(path: Path) -> Path:
    """Norms of ones and zeros: equal constants that passes share, and affine parts that passes drop."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, cross_attention_dim=24, attention_head_dim=2, **(SMALL | {"block_out_channels": (128, 128)})
    ).save_pretrained(path)
    return path


CASES: dict[str, Callable[[Path], ComponentModel]] = {
    "unet ORIGINAL": lambda path: build("unet", save_unet(path, **SMALL), attention_implementation="ORIGINAL", **UNET),
    "unet SPLIT_EINSUM": lambda path: build(
        "unet", save_unet(path, **SMALL), attention_implementation="SPLIT_EINSUM", **UNET
    ),
    "unet SPLIT_EINSUM_V2": lambda path: build(
        "unet", save_unet(path, **SMALL), attention_implementation="SPLIT_EINSUM_V2", query_chunk=24, **UNET
    ),
    "unet for ControlNet": lambda path: build("unet", save_unet(path, **SMALL), controlnet_ready=True, **UNET),
    "unet as initialised": lambda path: build("unet", default_initialised_unet(path), **UNET),
    "sd2 unet": lambda path: build("unet", save_unet(path, "sd2", **SMALL), **UNET),
    "sdxl unet": lambda path: build("unet", save_unet(path, "sdxl", mid_block_type=None), **UNET),
    "controlnet": lambda path: build("controlnet", save_controlnet(path), **UNET),
    "text encoder": lambda path: build("text_encoder", save_text_encoder(path), family="sd1"),
    "sdxl text encoder": lambda path: build("text_encoder_2", save_text_encoder(path, projected=True)),
    "vae decoder": lambda path: build("vae_decoder", save_vae(path), latent_height=4, latent_width=4),
    "vae encoder": lambda path: build("vae_encoder", save_vae(path), latent_height=4, latent_width=4),
    "safety checker": lambda path: build("safety_checker", save_safety_checker(path), latent_height=8, latent_width=8),
}


@pytest.mark.parametrize("case", CASES)
def test_every_component(case: str, tmp_path: Path) -> None:
    assert_equal(CASES[case](tmp_path / "checkpoint"), tmp_path)


@pytest.mark.parametrize("deployment_target", ["iOS17", "iOS18"])
def test_every_deployment_target(deployment_target: str, tmp_path: Path) -> None:
    assert_equal(CASES["unet SPLIT_EINSUM"](tmp_path / "checkpoint"), tmp_path, deployment_target=deployment_target)


@pytest.mark.parametrize("case", ["unet SPLIT_EINSUM", "text encoder"])
def test_float32(case: str, tmp_path: Path) -> None:
    assert_equal(CASES[case](tmp_path / "checkpoint"), tmp_path, precision="float32")


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "sharded", "pickled"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
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
