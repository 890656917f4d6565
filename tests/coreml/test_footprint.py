"""What a program needs in memory, counted by hand on small programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813

from sdbuild.coreml.footprint import footprint
from sdbuild.coreml.package import Package
from sdbuild.coreml.palettize import palettize
from tests.coreml import programs

ROW = 4 * 1024  # bytes of a float32 value of shape (1, 1024)


def save(program: Any, out: Path, **settings: Any) -> Package:
    settings = {"compute_precision": ct.precision.FLOAT32, "minimum_deployment_target": ct.target.iOS16} | settings
    ct.convert(program, skip_model_load=True, pass_pipeline=ct.PassPipeline.EMPTY, **settings).save(str(out))
    return Package.open(out)


def of(tmp_path: Path, build: Callable[[Any], Any]) -> int:
    """Bytes of activations of a program with one input `x` of shape (1, 1024)."""
    program = mb.program(input_specs=[mb.TensorSpec((1, 1024))], opset_version=ct.target.iOS16)(lambda x: build(x))
    found = footprint(save(program, tmp_path / "p.mlpackage")).activations
    assert found is not None
    return found


def test_an_element_wise_operation_writes_over_what_nobody_reads_afterwards(tmp_path: Path) -> None:
    # The input is the caller's: exp needs a buffer, and everything after it writes there.
    assert of(tmp_path, lambda x: mb.tanh(x=mb.relu(x=mb.exp(x=x)))) == 2 * ROW


def test_what_is_read_again_stays(tmp_path: Path) -> None:
    def program(x: Any) -> Any:
        first = mb.exp(x=x)
        return mb.add(x=mb.relu(x=first), y=first)

    assert of(tmp_path, program) == 3 * ROW


def test_a_reshape_shares_its_operands_buffer(tmp_path: Path) -> None:
    assert of(tmp_path, lambda x: mb.reshape(x=mb.exp(x=x), shape=[1024, 1])) == 2 * ROW
    assert of(tmp_path, lambda x: mb.transpose(x=mb.exp(x=x), perm=[1, 0])) == 3 * ROW


def test_branches_are_computed_one_after_the_other(tmp_path: Path) -> None:
    def program(x: Any) -> Any:
        wide = [mb.tile(x=x, reps=[8, 1]) for _ in range(4)]  # all four are written before any is read
        narrow = [mb.reduce_sum(x=value, axes=[0], keep_dims=True) for value in wide]
        return mb.concat(values=narrow, axis=0)

    assert of(tmp_path, program) == (1 + 8 + 4) * ROW


def test_operations_that_nothing_needs_cost_nothing(tmp_path: Path) -> None:
    def program(x: Any) -> Any:
        mb.tile(x=x, reps=[64, 1])
        return mb.exp(x=x)

    assert of(tmp_path, program) == 2 * ROW


def test_sizes_that_are_known_only_at_run_time(tmp_path: Path) -> None:
    program = mb.program(input_specs=[mb.TensorSpec((1, 64))], opset_version=ct.target.iOS16)(lambda x: mb.exp(x=x))
    package = save(program, tmp_path / "p.mlpackage")
    (dimension, _) = package.spec.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions
    dimension.unknown.variadic = False
    assert footprint(package).activations is None


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_weights_as_they_are_stored_and_as_they_are_read(tmp_path: Path, target: str) -> None:
    dense = footprint(Package.open(programs.package(tmp_path / "dense.mlpackage", target)))
    elements = sum(value.size for value in programs.weights().values())
    assert dense.stored == pytest.approx(2 * elements, rel=0.02)
    assert dense.expanded == pytest.approx(dense.stored, rel=0.02)
    palettize(tmp_path / "dense.mlpackage", tmp_path / "small.mlpackage", bits=4)
    small = footprint(Package.open(tmp_path / "small.mlpackage"))
    assert small.stored < dense.stored / 2  # a few small weights stay as they are
    assert small.expanded == pytest.approx(dense.expanded, rel=0.02)
    assert small.activations == dense.activations


def test_a_constant_that_is_stored_once_counts_once(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec((1, 1024))], opset_version=ct.target.iOS16)
    def program(x):
        first = mb.matmul(x=x, y=mb.const(val=table, name="first"))
        return mb.matmul(x=first, y=mb.const(val=table, name="second"))

    found = footprint(save(program, tmp_path / "p.mlpackage"))
    assert found.stored == found.expanded
    assert found.stored in (4 * table.size, 8 * table.size)
