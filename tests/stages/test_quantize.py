"""The quantize stage: the same package and map with smaller weights, and the error of every tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sdbuild.builtin import tiny
from sdbuild.bundle.features import read_interface
from sdbuild.bundle.linter.compression import bits_of, lint_compression
from sdbuild.bundle.linter.contents import Contents
from sdbuild.errors import SdbuildError
from sdbuild.stages import quantize
from tests.stages.faults import copy_artifact, edit_weight
from tests.stages.models import CONVERSION, Recorder, converted, palette, top_level

PACKAGE = "TextEncoder.mlpackage"
WEIGHTS = f"{PACKAGE}/Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text-encoder")
    tiny.generate("tiny-sd", root / "checkpoint", ["", "text_encoder"])
    parameters = CONVERSION | {"component": "text_encoder", "family": None, "text_sequence_length": 77}
    return converted(root / "checkpoint/text_encoder", root / "converted", **parameters)


def test_the_package_keeps_name_interface_and_map(text_encoder: Path, tmp_path: Path) -> None:
    progress = Recorder()
    quantize.run({"package": text_encoder}, palette(4), tmp_path, progress)
    assert top_level(tmp_path) == [PACKAGE, "modules.json", "quantization.json"]
    assert read_interface(tmp_path / PACKAGE) == read_interface(text_encoder / PACKAGE)
    assert (tmp_path / "modules.json").read_bytes() == (text_encoder / "modules.json").read_bytes()
    assert (tmp_path / WEIGHTS).stat().st_size < (text_encoder / WEIGHTS).stat().st_size
    assert progress.reports


def test_the_report_has_the_error_of_every_tensor(text_encoder: Path, tmp_path: Path) -> None:
    errors = {}
    for bits in (2, 8):
        out = tmp_path / str(bits)
        out.mkdir()
        quantize.run({"package": text_encoder}, palette(bits), out, Recorder())
        report = json.loads((out / "quantization.json").read_text())
        assert report["bytes_after"] == (out / WEIGHTS).stat().st_size
        assert all(tensor["bits"] == bits and tensor["squared_error"] >= 0 for tensor in report["tensors"])
        assert any("embedding" in tensor["name"] for tensor in report["untouched"]), "embedding tables are left alone"
        errors[bits] = sum(tensor["squared_error"] for tensor in report["tensors"])
    assert errors[8] < errors[2] / 100


def test_linear_weights_and_tables_for_groups(text_encoder: Path, tmp_path: Path) -> None:
    quantize.run({"package": text_encoder}, {"bits": 8, "method": "linear", "group_size": None}, tmp_path, Recorder())
    report = json.loads((tmp_path / "quantization.json").read_text())
    assert report["tensors"]
    assert all(tensor["groups"] == tensor["shape"][0] for tensor in report["tensors"])
    assert all((tensor["signal_to_noise_db"] or 99) > 35 for tensor in report["tensors"])
    with pytest.raises(SdbuildError, match="iOS 18"):
        quantize.run({"package": text_encoder}, palette(4, 16), tmp_path, Recorder())


def test_an_infinite_weight_is_refused_by_name(text_encoder: Path, tmp_path: Path) -> None:
    def spoil(weight: np.ndarray) -> np.ndarray:
        spoilt = weight.copy()
        spoilt.flat[0] = np.inf
        return spoilt

    broken = copy_artifact(text_encoder, tmp_path / "broken")
    edit_weight(broken, "layers_0_mlp_fc1_weight", spoil)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SdbuildError, match="layers_0_mlp_fc1_weight"):
        quantize.run({"package": broken}, palette(6), out, Recorder())


def test_bits_that_the_deployment_target_cannot_hold_are_refused(text_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(SdbuildError, match="3"):
        quantize.run({"package": text_encoder}, palette(3), tmp_path, Recorder())


def test_the_linter_reads_the_bits_off_the_operations(text_encoder: Path, tmp_path: Path) -> None:
    """A bundle that says 8 bits of a model that was never quantized is a lie that no digest finds."""
    contents = Contents("sd", {"TextEncoder": text_encoder / PACKAGE})
    assert bits_of(text_encoder / PACKAGE) == frozenset()
    assert list(lint_compression({"TextEncoder": {"bits": None}}, contents)) == []
    (violation,) = lint_compression({"TextEncoder": {"bits": 8}}, contents)
    assert "says 8 bits, the model has no compressed weights" in str(violation)
    quantize.run({"package": text_encoder}, palette(4), tmp_path, Recorder())
    contents = Contents("sd", {"TextEncoder": tmp_path / PACKAGE})
    assert bits_of(tmp_path / PACKAGE) == {4}
    assert list(lint_compression({"TextEncoder": {"bits": 4}}, contents)) == []
    for said, words in ((8, "says 8 bits, the model has 4 bits"), (None, "says no bits, the model has 4 bits")):
        (violation,) = lint_compression({"TextEncoder": {"bits": said}}, contents)
        assert words in str(violation)
    (tmp_path / "linear").mkdir()
    linear = {"bits": 8, "method": "linear", "group_size": None}
    quantize.run({"package": text_encoder}, linear, tmp_path / "linear", Recorder())
    assert bits_of(tmp_path / "linear" / PACKAGE) == {8}


def test_the_bits_of_a_package_for_ios_18(tmp_path: Path) -> None:
    tiny.generate("tiny-sd", tmp_path / "checkpoint", ["", "text_encoder"])
    parameters = CONVERSION | {"component": "text_encoder", "family": None, "text_sequence_length": 77}
    parameters |= {"deployment_target": "iOS18"}
    made = converted(tmp_path / "checkpoint/text_encoder", tmp_path / "converted", **parameters)
    (tmp_path / "out").mkdir()
    quantize.run({"package": made}, palette(6), tmp_path / "out", Recorder())
    assert bits_of(tmp_path / "out" / PACKAGE) == {6}
