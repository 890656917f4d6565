"""The convert stage: one package with everything that Xcode shows, and the map back to the torch modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdbuild.builtin import tiny
from sdbuild.bundle.features import read_interface
from sdbuild.errors import SdbuildError
from sdbuild.stages import convert
from tests.stages.faults import copy_artifact
from tests.stages.models import CONVERSION, UNET_CONVERSION, Recorder, contents, converted, made_by_worker, top_level

IMAGES = {"latent_height": 8, "latent_width": 8}
TEXTS = {"text_sequence_length": 77}

# Checkpoint, folder, parameters, package, inputs, outputs.
CASES: dict[str, tuple[str, str, dict[str, Any], str, set[str], set[str]]] = {
    "text_encoder": (
        "tiny-sd",
        "text_encoder",
        TEXTS | {"component": "text_encoder", "family": None},
        "TextEncoder",
        {"input_ids"},
        {"last_hidden_state", "pooled_outputs"},
    ),
    "text_encoder_2": (
        "tiny-sdxl",
        "text_encoder_2",
        TEXTS | {"component": "text_encoder_2", "family": "sdxl"},
        "TextEncoder2",
        {"input_ids"},
        {"hidden_embeds", "pooled_outputs"},
    ),
    "unet": (
        "tiny-sd",
        "unet",
        UNET_CONVERSION,
        "Unet",
        {"sample", "timestep", "encoder_hidden_states"},
        {"noise_pred"},
    ),
    "vae_encoder": (
        "tiny-sd",
        "vae",
        IMAGES | {"component": "vae_encoder"},
        "VAEEncoder",
        {"x"},
        {"latent"},
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    tiny.generate("tiny-sd", root / "tiny-sd")
    tiny.generate("tiny-sdxl", root / "tiny-sdxl", ["", "text_encoder_2"])
    card = (root / "tiny-sd/README.md").read_bytes()
    for folder in ("tiny-sd/text_encoder", "tiny-sd/unet", "tiny-sd/vae", "tiny-sdxl/text_encoder_2"):
        (root / folder / "README.md").write_bytes(card)
    return root


@pytest.mark.parametrize("case", CASES)
def test_a_package_is_described_from_end_to_end(case: str, checkpoints: Path, tmp_path: Path) -> None:
    checkpoint, folder, parameters, name, inputs, outputs = CASES[case]
    config = checkpoints / checkpoint / folder / "config.json"
    sound = config.read_text()
    config.write_text(json.dumps(json.loads(sound) | {"_name_or_path": "somebody/some-model"}))
    progress = Recorder()
    try:
        convert.run({"checkpoint": config.parent}, CONVERSION | parameters, tmp_path, progress)
    finally:
        config.write_text(sound)
    assert top_level(tmp_path) == [f"{name}.mlpackage", "modules.json"]
    interface = read_interface(tmp_path / f"{name}.mlpackage")
    assert {feature.name for feature in interface.inputs} == inputs
    assert {feature.name for feature in interface.outputs} == outputs
    assert all(feature.description.endswith(".") for feature in (*interface.inputs, *interface.outputs))
    assert interface.author == "somebody"
    assert interface.license == "mit"
    assert interface.version == "somebody/some-model"
    assert interface.description.endswith(".")
    assert interface.specification_version == 7
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert modules
    assert all(isinstance(module, str) for module in modules.values())
    assert any("." in module for module in modules.values())
    assert [fraction for fraction, _ in progress.reports] == sorted(fraction for fraction, _ in progress.reports)


def test_a_checkpoint_that_does_not_say_leaves_metadata_empty(checkpoints: Path, tmp_path: Path) -> None:
    checkpoint = copy_artifact(checkpoints / "tiny-sd/vae", tmp_path / "vae")
    (checkpoint / "README.md").unlink()
    parameters = IMAGES | CONVERSION | {"component": "vae_encoder"}
    interface = read_interface(converted(checkpoint, tmp_path / "out", **parameters) / "VAEEncoder.mlpackage")
    assert (interface.author, interface.license, interface.version) == ("", "", "")


def test_precision_and_deployment_target_reach_the_package(checkpoints: Path, tmp_path: Path) -> None:
    parameters = TEXTS | {"component": "text_encoder", "family": None}
    checkpoint = checkpoints / "tiny-sd/text_encoder"
    wide = converted(checkpoint, tmp_path / "wide", **parameters, precision="float32", deployment_target="iOS17")
    half = converted(checkpoint, tmp_path / "half", **parameters, **CONVERSION)
    assert read_interface(wide / "TextEncoder.mlpackage").specification_version == 8
    sizes = [sum(path.stat().st_size for path in out.rglob("weight.bin")) for out in (half, wide)]
    assert 0.45 < sizes[0] / sizes[1] < 0.55


@pytest.mark.parametrize("case", ["unet", "text_encoder", "vae_encoder"])
def test_a_build_s_worker_imports_less_and_makes_the_same(case: str, checkpoints: Path, tmp_path: Path) -> None:
    checkpoint, folder, parameters, *_ = CASES[case]
    source, parameters = checkpoints / checkpoint / folder, CONVERSION | parameters
    alone = tmp_path / "alone"
    packages = (*convert.UNUSED, "torch")
    assert made_by_worker("convert", {"checkpoint": source}, parameters, alone, packages) == ["torch"]
    assert contents(alone) == contents(converted(source, tmp_path / "beside others", **parameters))


def test_a_controlnet_ready_unet_has_a_name_of_its_own(checkpoints: Path, tmp_path: Path) -> None:
    parameters = UNET_CONVERSION | {"controlnet_ready": True, "batch": 2}
    out = converted(checkpoints / "tiny-sd/unet", tmp_path / "out", **parameters)
    assert top_level(out) == ["ControlledUnet.mlpackage", "modules.json"]
    interface = read_interface(out / "ControlledUnet.mlpackage")
    residuals = [feature for feature in interface.inputs if feature.name.startswith("additional_residual_")]
    assert len(residuals) > 3
    assert all(feature.description.endswith(".") for feature in residuals)


def test_t2i_adapters_and_the_unet_for_them_have_names_of_their_own(checkpoints: Path, tmp_path: Path) -> None:
    unet = UNET_CONVERSION | {"adapter_ready": True, "batch": 2}
    out = converted(checkpoints / "tiny-sd/unet", tmp_path / "unet", **unet)
    assert top_level(out) == ["AdaptedUnet.mlpackage", "modules.json"]
    taken = read_interface(out / "AdaptedUnet.mlpackage").inputs
    adapter = {"component": "t2i_adapter", "latent_height": 8, "latent_width": 8, "family": None}
    tiny.generate("tiny-t2i-adapter-light", tmp_path / "checkpoint")
    out = converted(tmp_path / "checkpoint", tmp_path / "adapter", **adapter, **CONVERSION)
    assert top_level(out) == ["T2IAdapter.mlpackage", "modules.json"]
    interface = read_interface(out / "T2IAdapter.mlpackage")
    assert [(feature.name, feature.shape) for feature in interface.inputs] == [("adapter_cond", (1, 1, 64, 64))]
    assert all(feature.dtype == "float32" for feature in interface.outputs)
    features = {feature.name: feature.shape[1:] for feature in interface.outputs}
    assert features == {f.name: f.shape[1:] for f in taken if f.name.startswith("additional_feature_")}


def test_a_checkpoint_of_another_class_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    parameters = TEXTS | CONVERSION | {"component": "text_encoder", "family": None}
    with pytest.raises(SdbuildError, match="UNet2DConditionModel"):
        convert.run({"checkpoint": checkpoints / "tiny-sd/unet"}, parameters, tmp_path, Recorder())
    assert top_level(tmp_path) == []


def test_a_weight_beyond_half_precision_is_refused_by_name(checkpoints: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    checkpoint = copy_artifact(checkpoints / "tiny-sd/text_encoder", tmp_path / "broken")
    weights = load_file(checkpoint / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.fc1.weight"))
    weights[name][0, 0] = 1e6
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    parameters = TEXTS | CONVERSION | {"component": "text_encoder", "family": None}
    with pytest.raises(SdbuildError, match=r"fc1.*float32"):
        convert.run({"checkpoint": checkpoint}, parameters, out, Recorder())
