"""Half precision in place is the program of coremltools' own pass, name by name, after the passes that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Operation, types
from coremltools.converters.mil.mil.passes.defs.quantization import AbstractQuantizationPass
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.converters.mil.mil.scope import ScopeSource

from sdbuild.coreml.lowering.patches import half
from sdbuild.coreml.lowering.patches.patch import replaced

FOLLOWING = ("const_elimination", "dead_code_elimination", "cast_optimization", "dead_code_elimination")


Var = Any


def chain(x: Var) -> Var:
    """Constants that one and several operations use, and a number that half precision would round to zero."""
    shared = mb.const(val=np.full(6, 3.0, np.float32), name="shared")
    x = mb.add(x=x, y=shared, name="first")
    x = mb.mul(x=x, y=shared, name="second")
    return mb.add(x=mb.mul(x=x, y=x, name="square"), y=np.float32(1e-12), name="result")


def several_results(x: Var) -> tuple[Var, ...]:
    """Lists of results and of operands, one of them kept, and results that are the program's too, one of them twice."""
    left, right = mb.split(x=x, num_splits=2, axis=0, name="halves")
    whole = mb.concat(values=[right, left, right], axis=0, name="whole")
    return left, mb.concat(values=[right, whole], axis=0, name="kept"), whole, whole


def kept(x: Var) -> Var:
    """An operation that stays float32 between others, and one constant for both kinds."""
    shared = mb.const(val=np.arange(6, dtype=np.float32), name="shared")
    x = mb.add(x=x, y=shared, name="before")
    return mb.add(x=mb.mul(x=mb.mul(x=x, y=shared, name="kept"), y=x, name="kept again"), y=shared, name="after")


def casts(x: Var) -> tuple[Var, ...]:
    """Casts that were there before, from half and to integers, and results that are no numbers."""
    x = mb.cast(x=mb.relu(x=mb.cast(x=x, dtype="fp16", name="narrow"), name="halved"), dtype="fp32", name="wide")
    truth = mb.greater(x=x, y=np.float32(2), name="greater")
    return mb.cast(x=mb.exp(x=x, name="exponential"), dtype="int32", name="whole"), truth


def parameters_of_their_own(x: Var) -> Var:
    """Parameters that later targets take in float32 whatever the operation computes with."""
    x = mb.leaky_relu(x=x, alpha=np.float32(0.1), name="leaky")
    return mb.rsqrt(x=x, epsilon=np.float32(1e-12), name="result")


def too_large(x: Var) -> Var:
    """A constant that half precision does not hold keeps its operation in float32."""
    return mb.add(x=mb.mul(x=x, y=np.float32(1e6), name="large"), y=np.float32(1), name="result")


def an_input(x: Var) -> tuple[Var, ...]:
    """An input that is a result too."""
    return x, mb.exp(x=x, name="result")


def nothing(x: Var) -> Var:
    """No operation."""
    return x


# These go the pass's own way.


def nested(x: Var) -> Var:
    """Blocks within the program."""
    positive = mb.greater(x=mb.reduce_sum(x=x, name="sum"), y=np.float32(0), name="positive")
    return mb.cond(
        pred=positive,
        _true_fn=lambda: mb.add(x=x, y=np.float32(1), name="more"),
        _false_fn=lambda: mb.mul(x=x, y=np.float32(2), name="twice"),
        name="result",
    )


def known_late(x: Var) -> Var:
    """What an operation takes has become a constant, but nobody has computed its result again."""
    ones = np.ones((4, 6), np.float32)
    chosen = mb.select(cond=np.full((4, 6), True), a=ones, b=x, name="chosen")
    return mb.add(x=x, y=mb.exp(x=chosen, name="exponential"), name="result")


PLAIN = (chain, several_results, kept, casts, parameters_of_their_own, too_large, an_input, nothing)
OTHERS = (nested, known_late)


def described(build: Callable[..., Any], apply: Any, target: Any) -> list[Any]:
    """Everything that a program says after the pass: results, and all operations with values and modules."""
    mb.name_count.clear()
    program = mb.program(input_specs=[mb.TensorSpec((4, 6), types.fp32)], opset_version=target)(build)
    function = program.functions["main"]
    for number, op in enumerate(function.operations):
        op.scopes = {ScopeSource.EXIR_DEBUG_HANDLE: [number]}
    for name in ("select_optimization", "const_elimination"):
        PASS_REGISTRY[f"common::{name}"](program)
    half_precision = PASS_REGISTRY["common::add_fp16_cast"]
    half_precision.op_selector = lambda op: not op.name.startswith("kept")
    try:
        with replaced(AbstractQuantizationPass, "apply", apply):
            half_precision(program)
    finally:
        half_precision.op_selector = None
    for name in FOLLOWING:
        PASS_REGISTRY[f"common::{name}"](program)
    return [[output.name for output in function.outputs], *operations_of(function)]


def operations_of(block: Any) -> Iterator[Any]:
    for op in block.operations:
        given = {
            name: [one.name for one in (value if isinstance(value, list | tuple) else [value])]
            for name, value in op.inputs.items()
        }
        results = [(one.name, str(one.sym_type), repr(one.val)) for one in op.outputs]
        yield op.op_type, op.name, given, results, op.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE)
        for inner in op.blocks:
            yield [list(operations_of(inner)), [output.name for output in inner.outputs]]


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
@pytest.mark.parametrize("build", [*PLAIN, *OTHERS])
def test_programs_are_the_same(build: Callable[..., Any], target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    is_plain, plain = half.is_plain, []
    monkeypatch.setattr(half, "is_plain", lambda function: plain.append(is_plain(function)) or plain[-1])
    stock = AbstractQuantizationPass.apply
    theirs = described(build, stock, target)
    assert build is nothing or "fp16" in repr(theirs)
    assert described(build, half.in_place(stock), target) == theirs
    assert plain == [build in PLAIN]


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
