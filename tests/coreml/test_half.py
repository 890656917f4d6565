"""Half precision in place is the program of coremltools' own pass, name by name, after the passes that follow it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Operation, types
from coremltools.converters.mil.mil.passes.defs.quantization import AbstractQuantizationPass
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

from sdbuild.coreml.lowering import half
from sdbuild.coreml.lowering.passes import replaced

FOLLOWING = ("const_elimination", "dead_code_elimination", "cast_optimization", "dead_code_elimination")


def chain(x: Any) -> Any:
    """Constants that one and several operations use, and a number that half precision would round to zero."""
    shared = mb.const(val=np.full(6, 3.0, np.float32), name="shared")
    x = mb.add(x=x, y=shared, name="first")
    x = mb.mul(x=x, y=shared, name="second")
    return mb.add(x=mb.mul(x=x, y=x, name="square"), y=np.float32(1e-12), name="result")


def several_results(x: Any) -> Any:
    """A list of results, a list of operands, and results that are the program's too."""
    left, right = mb.split(x=x, num_splits=2, axis=0, name="halves")
    return left, mb.concat(values=[right, left, right], axis=0, name="result")


def kept(x: Any) -> Any:
    """An operation that stays float32 between others, and one constant for both kinds."""
    shared = mb.const(val=np.arange(6, dtype=np.float32), name="shared")
    x = mb.add(x=x, y=shared, name="before")
    return mb.add(x=mb.mul(x=mb.mul(x=x, y=shared, name="kept"), y=x, name="kept again"), y=shared, name="after")


def casts(x: Any) -> Any:
    """Casts that were there before, from half and to integers, and results that are no numbers."""
    x = mb.cast(x=mb.relu(x=mb.cast(x=x, dtype="fp16", name="narrow"), name="halved"), dtype="fp32", name="wide")
    truth = mb.greater(x=x, y=np.float32(2), name="greater")
    return mb.cast(x=mb.exp(x=x, name="exponential"), dtype="int32", name="whole"), truth


def too_large(x: Any) -> Any:
    """A constant that half precision does not hold keeps its operation in float32."""
    return mb.add(x=mb.mul(x=x, y=np.float32(1e6), name="large"), y=np.float32(1), name="result")


def nested(x: Any) -> Any:
    """Blocks within the program."""
    positive = mb.greater(x=mb.reduce_sum(x=x, name="sum"), y=np.float32(0), name="positive")
    return mb.cond(
        pred=positive,
        _true_fn=lambda: mb.add(x=x, y=np.float32(1), name="more"),
        _false_fn=lambda: mb.mul(x=x, y=np.float32(2), name="twice"),
        name="result",
    )


def text(build: Callable[..., Any], apply: Any, target: Any) -> str:
    mb.name_count.clear()
    program = mb.program(input_specs=[mb.TensorSpec((4, 6), types.fp32)], opset_version=target)(build)
    half_precision = PASS_REGISTRY["common::add_fp16_cast"]
    half_precision.op_selector = lambda op: not op.name.startswith("kept")
    try:
        with replaced(AbstractQuantizationPass, "apply", apply):
            half_precision(program)
    finally:
        half_precision.op_selector = None
    for name in FOLLOWING:
        PASS_REGISTRY[f"common::{name}"](program)
    return re.sub(r"block\d+", "block", str(program))  # blocks are counted for as long as Python runs


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
@pytest.mark.parametrize("build", [chain, several_results, kept, casts, too_large, nested])
def test_programs_are_the_same(build: Callable[..., Any], target: Any) -> None:
    stock = AbstractQuantizationPass.apply
    theirs = text(build, stock, target)
    assert "fp16" in theirs
    assert text(build, half.in_place(stock), target) == theirs


def test_no_operation_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    initialise = Operation.__init__

    def counted(op: Any, **given: Any) -> None:
        made.append(type(op).__name__)
        initialise(op, **given)

    program = mb.program(input_specs=[mb.TensorSpec((4, 6), types.fp32)], opset_version=ct.target.iOS16)(chain)
    monkeypatch.setattr(Operation, "__init__", counted)
    with replaced(AbstractQuantizationPass, "apply", half.in_place(AbstractQuantizationPass.apply)):
        PASS_REGISTRY["common::add_fp16_cast"](program)
    # One cast of the input and one of the result, each with its type; two constants of half precision.
    assert sorted(made) == ["cast", "cast", "const", "const", "const", "const"]
