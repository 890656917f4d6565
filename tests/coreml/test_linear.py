"""Linear quantization: coremltools' structure, an error of at most half a step, and no more than coremltools'."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import coremltools.optimize as cto
import numpy as np
import pytest

from sdbuild.coreml.linear import quantize_linearly, quantized
from sdbuild.coreml.program import ProgramError
from sdbuild.coreml.runtime import Model
from tests.coreml import programs
from tests.coreml.test_palettize import constants, decompressed, structure


def by_coremltools(source: Path, out: Path) -> Path:
    config = cto.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_channel")
    settings = cto.coreml.OptimizationConfig(global_config=config)
    name = next(name for name in constants(source) if name.startswith("table"))
    settings.set_op_name(name, None)
    model = ct.models.MLModel(str(source), skip_model_load=True)
    cto.coreml.linear_quantize_weights(model, settings).save(str(out))
    return out


def _without_numbers(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith("values:"))


@pytest.mark.parametrize(
    ("target", "precision"), [("iOS16", "FLOAT16"), ("iOS17", "FLOAT32"), ("iOS18", "FLOAT16"), ("iOS18", "FLOAT32")]
)
def test_same_structure_and_no_larger_error_than_coremltools(tmp_path: Path, target: str, precision: str) -> None:
    source = programs.package(tmp_path / "source.mlpackage", target, precision)
    reference = by_coremltools(source, tmp_path / "reference.mlpackage")
    report = quantize_linearly(source, tmp_path / "ours.mlpackage")

    ours_structure, ours_blobs = structure(tmp_path / "ours.mlpackage")
    reference_structure, reference_blobs = structure(reference)
    # But for the numbers that stand in the program itself: our scales are rounded up.
    assert [_without_numbers(text) for text in ours_structure] == [
        _without_numbers(text.replace("_quantized", "")) for text in reference_structure
    ]
    assert sorted(ours_blobs) == sorted(reference_blobs)
    plain = constants(source)
    ours = decompressed(tmp_path / "ours.mlpackage", tmp_path / "ours-dense.mlpackage")
    theirs = decompressed(reference, tmp_path / "reference-dense.mlpackage")
    theirs = {name.removesuffix("_quantized"): value for name, value in theirs.items()}
    assert len(report.tensors) == 4
    for tensor in report.tensors:
        error = float(((ours[tensor.name] - plain[tensor.name]) ** 2).sum())
        other = float(((theirs[tensor.name] - plain[tensor.name]) ** 2).sum())
        assert error <= other * 1.001, tensor.name
        assert error == pytest.approx(tensor.squared_error, rel=1e-4)
        assert tensor.bytes_after < tensor.bytes_before * (0.6 if precision == "FLOAT16" else 0.3)
    for name in plain.keys() - {tensor.name for tensor in report.tensors}:
        assert (ours[name] == plain[name]).all()


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_the_runtime_executes_what_coremltools_decompresses(tmp_path: Path, target: str) -> None:
    source = programs.package(tmp_path / "source.mlpackage", target)
    quantize_linearly(source, tmp_path / "ours.mlpackage")
    decompressed(tmp_path / "ours.mlpackage", tmp_path / "dense.mlpackage")
    rng = np.random.default_rng(1)
    model = Model(tmp_path / "ours.mlpackage")
    inputs = {
        spec.name: (
            rng.integers(0, 96, spec.shape) if spec.shape == (1, 4) else rng.standard_normal(spec.shape)
        ).astype(np.float32)
        for spec in model.inputs
    }
    dense = Model(tmp_path / "dense.mlpackage").predict(inputs)
    for name, value in model.predict(inputs).items():
        np.testing.assert_array_equal(value, dense[name])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("shape", "axis"), [((64, 33), 0), ((33, 64), 1), ((3, 64, 5, 5), 1), ((5, 1 << 19), 0)])
def test_no_element_is_further_than_half_a_step(dtype: type, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    values = (
        rng.standard_normal(shape)
        * np.exp(rng.uniform(-9, 3, shape[axis])).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    ).astype(dtype)
    values[tuple(slice(None) if index != axis else 0 for index in range(len(shape)))] = 0
    found = quantized(values, axis, shape[axis])
    scales = found.scales.astype(np.float64).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    distance = np.abs(found.integers * scales - values.astype(np.float64))
    assert (distance <= scales / 2 * (1 + 1e-5)).all()
    assert np.abs(found.integers.astype(int)).max() <= 127
    assert (np.take(found.integers, 0, axis) == 0).all()


def test_threads_change_nothing_and_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    source = programs.package(tmp_path / "source.mlpackage")
    for workers in (1, 3):
        quantize_linearly(source, tmp_path / f"{workers}.mlpackage", workers=workers)
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    first, second = ((tmp_path / f"{workers}.mlpackage" / weights).read_bytes() for workers in (1, 3))
    assert first == second
    values = programs.weights()
    values["conv"][3, 0, 0, 0] = np.inf
    broken = programs.package(tmp_path / "broken.mlpackage", values=values)
    with pytest.raises(ProgramError, match="conv"):
        quantize_linearly(broken, tmp_path / "out.mlpackage")
