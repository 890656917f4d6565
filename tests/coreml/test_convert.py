"""What a conversion writes beside the program, what it reads, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdbuild.coreml.convert import ConversionError, ConversionReport, ModelMetadata, convert
from sdbuild.coreml.package import Package
from sdbuild.models.build import build
from sdbuild.models.component import ComponentModel
from tests.coreml.stock import operations_of
from tests.models.conftest import save_text_encoder, save_unet

SMALL: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "mid_block_type": None,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ComponentModel:
    path = save_text_encoder(tmp_path_factory.mktemp("encoder"), num_hidden_layers=2, hidden_size=64)
    return build("text_encoder", path, family="sd1")


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> ComponentModel:
    path = save_unet(tmp_path_factory.mktemp("unet"), **SMALL)
    return build("unet", path, latent_height=8, latent_width=8, text_sequence_length=7)


def run(model: ComponentModel, out: Path, **changes: Any) -> ConversionReport:
    options: dict[str, Any] = {"precision": "float16", "deployment_target": "iOS16"} | changes
    weights = options.pop("weights", model.weights)
    return convert(model.module, model.inputs, model.outputs, weights, out, **options)


@pytest.fixture(scope="module")
def converted(unet: ComponentModel, tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    metadata = ModelMetadata("A. Uthor", "MIT", "org/model@1", "Predicts noise.", {"family": "sd1"})
    return run(unet, tmp_path_factory.mktemp("converted") / "Unet.mlpackage", metadata=metadata)


def test_interface_and_metadata(unet: ComponentModel, converted: ConversionReport) -> None:
    description = Package.open(converted.package).spec.description
    assert description.metadata.author == "A. Uthor"
    assert description.metadata.license == "MIT"
    assert description.metadata.versionString == "org/model@1"
    assert description.metadata.shortDescription == "Predicts noise."
    assert dict(description.metadata.userDefined) == {"family": "sd1"}
    types = {65552: "float16", 65568: "float32", 131104: "int32"}
    inputs = [
        (feature.name, tuple(feature.type.multiArrayType.shape), types[feature.type.multiArrayType.dataType])
        for feature in description.input
    ]
    assert inputs == [(spec.name, spec.shape, spec.dtype) for spec in unet.inputs]
    assert [feature.name for feature in description.output] == [spec.name for spec in unet.outputs]
    assert {types[feature.type.multiArrayType.dataType] for feature in description.output} == {"float32"}
    assert all(feature.shortDescription for feature in (*description.input, *description.output))


def test_operations_know_their_modules(unet: ComponentModel, converted: ConversionReport) -> None:
    modules = json.loads(converted.modules.read_text())
    outputs = {name: kind for kind, name, _ in operations_of(Package.open(converted.package)) if kind != "const"}
    assert modules.keys() <= outputs.keys()
    known = {name for name, _ in unet.module.named_modules()}
    assert set(modules.values()) <= known
    convolutions = [name for name, kind in outputs.items() if kind == "conv"]
    assert convolutions
    assert all(modules.get(name) for name in convolutions)


def test_named_modules_stay_float32(unet: ComponentModel, tmp_path: Path) -> None:
    kept = next(name for name, module in unet.module.named_modules() if name.endswith("conv_out"))
    report = run(unet, tmp_path / "Unet.mlpackage", float32_modules=(kept,))
    modules = json.loads(report.modules.read_text())
    types = {
        name: operation.outputs[0].type.tensorType.dataType
        for kind, name, operation in operations_of(Package.open(report.package))
        if kind == "conv"
    }
    float32 = {name for name, kind in types.items() if kind == 11}
    assert float32
    assert {modules[name] for name in float32} == {kept}


def test_passes_read_hardly_any_value(unet: ComponentModel, converted: ConversionReport) -> None:
    """Heads of tensors to find equal ones; vectors of fewer than 400 elements; what might be all ones or zeros."""
    assert {place.rsplit(".", 1)[1] for place in converted.readings} <= {
        "find_constants",
        "_close_to_zero",
        "_check_underflow_to_zero",
        "has_all_elements_equal_to",
        "_numpy_val_to_bytes",
        "_try_to_transform",  # a scale folded into a convolution too small to be worth deferring
    }
    vectors = sum(
        np.prod(weight.shape) for weight in unet.weights.values() if max(weight.shape) == np.prod(weight.shape)
    )
    heads = 100 * 4 * len(unet.weights)
    assert sum(converted.readings.values()) <= heads + 4 * vectors


def test_a_weight_out_of_range_is_named(encoder: ComponentModel, tmp_path: Path) -> None:
    name = next(name for name in encoder.weights if name.endswith("mlp.fc1.weight"))
    values = np.array(encoder.weights[name].read(), np.float32)
    values[3, 5] = 1e5

    class Broken:
        name = "layers.0.mlp.fc1.weight"
        shape = values.shape
        dtype = "float32"

        def read(self) -> Any:
            return values

        def done(self) -> None:
            return

    weights = {**encoder.weights, name: Broken()}
    with pytest.raises(ConversionError, match=r"layers\.0\.mlp\.fc1\.weight: values from .* to 100000"):
        run(encoder, tmp_path / "TextEncoder.mlpackage", weights=weights)
    assert not (tmp_path / "TextEncoder.mlpackage").exists()
    run(encoder, tmp_path / "Float32.mlpackage", weights=weights, precision="float32")


def test_a_missing_or_misshapen_weight_is_named(encoder: ComponentModel, tmp_path: Path) -> None:
    name = next(name for name in encoder.weights if name.endswith("mlp.fc1.weight"))
    rest = {key: weight for key, weight in encoder.weights.items() if key != name}
    with pytest.raises(ConversionError, match=f"{name} has no values"):
        run(encoder, tmp_path / "A.mlpackage", weights=rest)
    wrong = replace(encoder.weights[name], shape=(1, 2, 3))  # type: ignore[type-var]
    with pytest.raises(ConversionError, match=r"the stored shape \(1, 2, 3\) is not the module's"):
        run(encoder, tmp_path / "B.mlpackage", weights={**rest, name: wrong})


def test_the_module_is_given_back_as_it_was(encoder: ComponentModel, tmp_path: Path) -> None:
    before = dict(encoder.module.state_dict(keep_vars=True))
    run(encoder, tmp_path / "TextEncoder.mlpackage")
    after = encoder.module.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert np.array([1.0]).dtype == np.float64  # NumPy's constructors are their own again


_CONVERT = """
import sys
from pathlib import Path
from sdbuild.coreml.convert import convert
from sdbuild.models.build import build
model = build("unet", Path(sys.argv[1]), latent_height=8, latent_width=8, text_sequence_length=7)
convert(model.module, model.inputs, model.outputs, model.weights, Path(sys.argv[2]) / "Unet.mlpackage",
        precision="float16", deployment_target="iOS16", float32_modules=model.float32_modules)
"""


def test_fresh_processes_write_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = save_unet(tmp_path / "checkpoint", **SMALL)
    trees = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _CONVERT, str(checkpoint), str(out)],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        trees.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4
