"""Reading checkpoints: every format that repositories hold, lazily, and every disagreement by name."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdbuild.checkpoints.checkpoint import Checkpoint
from sdbuild.models.build import build
from sdbuild.models.errors import ModelError

Save = Callable[..., Path]
WHOLE = "diffusion_pytorch_model.safetensors"


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, generator=generator)
    return {
        "half": values.half(),
        "brain": values.bfloat16(),
        "single": values,
        "double": values.double(),
        "ids": torch.arange(7),
        "scalar": torch.tensor(2.5),
    }


@pytest.mark.parametrize(
    "name", [WHOLE, "model.fp16.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"]
)
def test_every_type_in_both_formats(tmp_path: Path, name: str) -> None:
    tensors = some_tensors()
    torch.save(tensors, tmp_path / name) if name.endswith(".bin") else save_file(tensors, tmp_path / name)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.variant == ("fp16" if "fp16" in name else None)
    assert {key: weight.dtype for key, weight in checkpoint.items()} == {
        key: str(tensor.dtype).removeprefix("torch.") for key, tensor in tensors.items()
    }
    for _ in range(2):  # once more after the pages were given back
        for key, weight in checkpoint.items():
            wanted = tensors[key].float() if key == "brain" else tensors[key]
            assert weight.shape == tuple(wanted.shape)
            np.testing.assert_array_equal(weight.read(), wanted.numpy(), strict=True)
            weight.done()


def test_old_pickles_that_are_no_zip_archives(tmp_path: Path) -> None:
    tensors = some_tensors()
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    for _ in range(2):
        for key, weight in Checkpoint.open(tmp_path).items():
            np.testing.assert_array_equal(weight.read(), tensors[key].float() if key == "brain" else tensors[key])
            weight.done()


@pytest.mark.parametrize("extension", ["safetensors", "bin"])
@pytest.mark.parametrize("index", ["{}.{}.index.json", "{}.{}.index.fp16.json"])
def test_shards(tmp_path: Path, extension: str, index: str) -> None:
    tensors = some_tensors()
    stem = "diffusion_pytorch_model"
    weight_map = {}
    for number, names in enumerate((["half", "ids"], ["brain", "single", "double", "scalar"]), 1):
        shard = f"{stem}-{number:05}-of-00002.{extension}"
        held = {name: tensors[name] for name in names}
        save_file(held, tmp_path / shard) if extension == "safetensors" else torch.save(held, tmp_path / shard)
        weight_map.update(dict.fromkeys(names, shard))
    (tmp_path / index.format(stem, extension)).write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = Checkpoint.open(tmp_path)
    assert set(checkpoint) == set(tensors)
    np.testing.assert_array_equal(checkpoint["single"].read(), tensors["single"])

    (tmp_path / f"{stem}-00002-of-00002.{extension}").unlink()
    with pytest.raises(ModelError, match="00002-of-00002"):
        Checkpoint.open(tmp_path)


def test_full_precision_and_safetensors_are_preferred(tmp_path: Path) -> None:
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    assert Checkpoint.open(tmp_path).variant == "fp16"
    torch.save({"x": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.bin")
    assert Checkpoint.open(tmp_path).location.name == "diffusion_pytorch_model.bin"
    save_file({"x": torch.zeros(1)}, tmp_path / WHOLE)
    assert Checkpoint.open(tmp_path).location.name == WHOLE


def test_views_share_the_files_pages(tmp_path: Path) -> None:
    save_file({"x": torch.arange(12.0).reshape(4, 3)}, tmp_path / WHOLE)
    weight = Checkpoint.open(tmp_path)["x"]
    reshaped = weight.reshaped((4, 3, 1, 1))
    assert reshaped.read().shape == (4, 3, 1, 1)
    assert np.shares_memory(reshaped.read(), weight.read())
    np.testing.assert_array_equal(weight.rows(2).read(), np.arange(6.0).reshape(2, 3))


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "cut short"),
    "no header": (lambda data: data[:20], "cut short"),
    "half the data": (lambda data: data[:-6], "download it again"),
    "no JSON": (lambda data: data[:8] + b"?" + data[9:], "not JSON"),
    "absurd header": (lambda data: struct.pack("<Q", 2**62) + data[8:], "cut short"),
    "unknown type": (lambda data: data.replace(b'"F32"', b'"F99"'), "type F99"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    change, reason = DAMAGE[damage]
    path = tmp_path / WHOLE
    save_file({"x": torch.zeros(4, 3)}, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=reason) as caught:
        Checkpoint.open(tmp_path)
    assert str(path) in str(caught.value)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", [Code(), {"x": Code()}, {"x": 1.0}, [torch.zeros(1)]])
def test_only_tensors_are_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        Checkpoint.open(tmp_path)
    assert not Path("executed").exists()


def test_no_weights(tmp_path: Path) -> None:
    (tmp_path / "flax_model.msgpack").touch()
    with pytest.raises(ModelError, match="flax_model"):
        Checkpoint.open(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        Checkpoint.open(tmp_path / "absent")


def rewritten(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(source, target)
    path = next(target.glob("*.safetensors"))
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return target


def test_every_disagreement_is_named(saved: Save, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["conv_in.bias"]
        tensors["conv_out.weight"] = torch.zeros(4, 32, 1, 1)
        tensors["surplus"] = torch.zeros(2)

    checkpoint = rewritten(saved("unet"), tmp_path / "unet", change)
    with pytest.raises(ModelError) as caught:
        build("unet", checkpoint, latent_height=8, latent_width=8)
    for problem in ("missing: conv_in.bias", "wrong shape: conv_out.weight", "unexpected: surplus"):
        assert problem in str(caught.value)
    assert "missing: conv_out.weight" not in str(caught.value)


def test_two_names_for_one_weight(saved: Save, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["text_model.final_layer_norm.bias"] = tensors["final_layer_norm.bias"].clone()

    checkpoint = rewritten(saved("text_encoder"), tmp_path / "text_encoder", change)
    with pytest.raises(ModelError, match=r"twice: text_model\.final_layer_norm\.bias"):
        build("text_encoder", checkpoint)


def with_prefix(prefix: str, part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(part)]:
            tensors[f"{prefix}{name}"] = tensors.pop(name)
        tensors[f"{prefix}{part}embeddings.position_ids"] = torch.arange(77)[None]

    return change


def old_autoencoder(tensors: dict[str, torch.Tensor]) -> None:
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        for name in [name for name in tensors if f".{new}." in name]:
            tensors[name.replace(new, old)] = tensors.pop(name)


OLD = {
    "text_encoder": ("text_encoder", with_prefix("text_model.", "")),
    "safety_checker": ("safety_checker", with_prefix("vision_model.", "vision_model.")),
    "vae": ("vae_decoder", old_autoencoder),
}


@pytest.mark.parametrize("kind", OLD)
def test_old_names(saved: Save, tmp_path: Path, kind: str) -> None:
    component, change = OLD[kind]
    sizes = {"latent_height": 8, "latent_width": 8}
    new = build(component, saved(kind), **sizes)
    old = build(component, rewritten(saved(kind), tmp_path / kind, change), **sizes)
    assert list(new.weights) == list(old.weights)
    for name, weight in new.weights.items():
        np.testing.assert_array_equal(weight.read(), old.weights[name].read())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_materialised_in_single_precision(saved: Save, tmp_path: Path, dtype: torch.dtype) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    checkpoint = rewritten(saved("unet"), tmp_path / "unet", change)
    module = build("unet", checkpoint, latent_height=8, latent_width=8).materialise()
    stored = load_file(next(checkpoint.glob("*.safetensors")))
    assert torch.equal(module.state_dict()["conv_in.weight"], stored["conv_in.weight"].float())
