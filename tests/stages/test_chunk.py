"""The chunk stage: two packages whose interfaces fit together, with the map of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdbuild.builtin import tiny
from sdbuild.bundle.features import read_interface
from sdbuild.stages import chunk, quantize
from sdbuild.stages.verify import execute
from tests.stages.models import UNET_CONVERSION, Recorder, converted, palette, top_level

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A UNet, and the same UNet with palettized weights."""
    root = tmp_path_factory.mktemp("unet")
    tiny.generate("tiny-sd", root / "checkpoint", ["", "unet"])
    whole = converted(root / "checkpoint/unet", root / "whole", **UNET_CONVERSION)
    (root / "palettized").mkdir()
    quantize.run({"package": whole}, palette(6), root / "palettized", Recorder())
    return {"float16": whole, "palettized": root / "palettized"}


@pytest.mark.parametrize("kind", ["float16", "palettized"])
def test_two_packages_do_what_the_whole_did(kind: str, artifacts: dict[str, Path], tmp_path: Path) -> None:
    from sdbuild.coreml.runtime import Model

    whole, progress = artifacts[kind], Recorder()
    chunk.run({"package": whole}, {}, tmp_path, progress)
    names = ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"]
    assert top_level(tmp_path) == [*names, "modules.json"]
    assert (tmp_path / "modules.json").read_bytes() == (whole / "modules.json").read_bytes()
    assert progress.reports[-1][0] == 1

    before = read_interface(whole / "Unet.mlpackage")
    first, second = (read_interface(tmp_path / name) for name in names)
    given = {feature.name for feature in before.inputs}
    passed = {feature.name for feature in first.outputs}
    assert {feature.name for feature in first.inputs} <= given
    assert {feature.name for feature in second.inputs} <= given | passed
    assert second.outputs == before.outputs
    for part in (first, second):
        assert (part.author, part.license, part.version) == (before.author, before.license, before.version)
        assert all(feature.description for feature in (*part.inputs, *part.outputs))

    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in names]
    assert max(sizes) < 1.25 * min(sizes), "nearly equal stored bytes"

    random = np.random.default_rng(0)
    inputs = {
        feature.name: (random.standard_normal(feature.shape) * 3).astype(feature.dtype) for feature in before.inputs
    }
    expected = execute([Model(whole / "Unet.mlpackage", "fp16")], inputs)
    actual = execute([Model(tmp_path / name, "fp16") for name in names], inputs)
    np.testing.assert_array_equal(actual["noise_pred"], expected["noise_pred"])
