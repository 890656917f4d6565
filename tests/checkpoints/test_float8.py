"""Weights of 8 bits: every number of both formats as PyTorch reads it, and scales as ComfyUI multiplies them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdbuild.checkpoints.checkpoint import read_pickle, read_safetensors
from sdbuild.checkpoints.write import write_safetensors
from sdbuild.models.errors import ModelError

FORMATS = [torch.float8_e4m3fn, torch.float8_e5m2]
CODES = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_every_number(kind: torch.dtype, suffix: str, tmp_path: Path) -> None:
    stored = CODES.view(kind).reshape(16, 16)
    path = tmp_path / f"x.{suffix}"
    if suffix == "pt":
        torch.save({"x": stored}, path)
    else:
        save_file({"x": stored}, path)
    read = read_safetensors if suffix == "safetensors" else read_pickle
    tensor = read(path)["x"]
    assert (tensor.dtype, tensor.shape) == ("float16", (16, 16))
    assert np.array_equal(tensor.read(), stored.half().numpy(), equal_nan=True)
    assert np.array_equal(tensor.piece(2, 5).read(), stored.half().numpy()[2:5], equal_nan=True)
    assert np.array_equal(tensor.transposed().read(), stored.half().numpy().T, equal_nan=True)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (8,), (8, 1)])
def test_scales(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    weight = (torch.randn(8, 4) * 3).to(torch.float8_e4m3fn)
    scale = torch.rand(shape) + 0.5
    beside = {f"model.a.{name}": scale, "model.a.scale_input": torch.ones(()), "model.scaled_fp8": torch.zeros(0)}
    save_file({"model.a.weight": weight, "model.a.bias": torch.ones(8), **beside}, tmp_path / "x.safetensors")
    tensors = read_safetensors(tmp_path / "x.safetensors")
    assert set(tensors) == {"model.a.weight", "model.a.bias"}
    expected = weight.float() * (scale.reshape(8, 1) if scale.numel() == 8 else scale)
    assert tensors["model.a.weight"].dtype == "float32"
    assert np.array_equal(tensors["model.a.weight"].read(), expected.numpy())
    write_safetensors(tmp_path / "y.safetensors", tensors)
    again = read_safetensors(tmp_path / "y.safetensors")["model.a.weight"]
    assert again.decode is None
    assert np.array_equal(again.read(), expected.numpy())


def described(**content: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)


WEIGHT = torch.ones(8, 4).to(torch.float8_e4m3fn)
FAULTS = {
    "scale-alone": ({"a.scale_weight": torch.ones(())}, "a.scale_weight is the scale of a.weight, which is not there"),
    "blocks": ({"a.weight": WEIGHT, "a.scale_weight": torch.ones(2)}, "has 2 numbers; a scale has one, or one for"),
    "two": (
        {"a.weight": WEIGHT, "a.scale_weight": torch.ones(()), "a.weight_scale": torch.ones(())},
        "a.weight has two scales",
    ),
    "format": ({"a.weight": WEIGHT, "a.comfy_quant": described(format="nvfp4")}, "says that weights are nvfp4"),
    "nothing": ({"a.weight": WEIGHT, "a.comfy_quant": described()}, "a.comfy_quant describes nothing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read(fault: str, tmp_path: Path) -> None:
    tensors, message = FAULTS[fault]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=message):
        read_safetensors(tmp_path / "x.safetensors")


def test_a_format_that_is_described(tmp_path: Path) -> None:
    save_file({"a.weight": WEIGHT, "a.comfy_quant": described(format="float8_e4m3fn")}, tmp_path / "x.safetensors")
    assert set(read_safetensors(tmp_path / "x.safetensors")) == {"a.weight"}


def test_integers_are_read_and_written_as_they_are(tmp_path: Path) -> None:
    """Old text encoders hold position ids in 64, 32 and fewer bits."""
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    tensors = {f"x{index}": torch.arange(6).reshape(2, 3).to(kind) for index, kind in enumerate(kinds)}
    save_file(tensors, tmp_path / "x.safetensors")
    write_safetensors(tmp_path / "y.safetensors", read_safetensors(tmp_path / "x.safetensors"))
    for name, tensor in read_safetensors(tmp_path / "y.safetensors").items():
        assert np.array_equal(tensor.read(), tensors[name].numpy()), name
