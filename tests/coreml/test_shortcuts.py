"""Shortcuts through functions of coremltools give what the functions give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder, Operation, Var, types
from coremltools.converters.mil.mil.ops.defs.iOS15.control_flow import Const
from coremltools.converters.mil.mil.passes.defs.cleanup.const_deduplication import const_deduplication
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

from sdbuild.coreml.lowering.patches import while_lowering

CONSTANTS = [
    *("text", True, 3, 1 << 40, -(1 << 40), 2.5, np.float16(2), np.float32(2), np.float64(2), np.int32(3)),
    *(np.int64(1 << 40), np.bool_(False), np.array(2.5), np.array([1 << 40, -(1 << 40), 3]), np.zeros((2, 3), np.int8)),
    *(np.zeros((2, 0), np.float16), np.ones(3, np.float32), np.array([True]), np.array([1, 2], np.int32)),
    *([1, 2], (1.5, 2.5), np.zeros(3, np.dtype(np.int8, metadata={"true_dtype": types.int4}))),
]


@pytest.mark.parametrize("value", CONSTANTS, ids=lambda value: f"{type(value).__name__} {value}")
def test_constants(value: Any) -> None:
    def looked_at() -> tuple[Any, Any, str]:
        kind, kept = Const._get_type_val(SimpleNamespace(name="constant"), value)
        return types.get_type_info(kind), type(kept), repr(kept)

    expected = looked_at()
    with while_lowering():
        assert looked_at() == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_close_to_zero(kind: Any) -> None:
    smallest = np.nextafter(kind(0), kind(1), dtype=kind)
    values = np.array([0, -0.0, smallest, -smallest, 2 * smallest, 1e-7, 1, np.inf, -np.inf, np.nan], kind)
    expected = [FP16ComputePrecision._close_to_zero(value, kind) for value in (values, *values)]
    with while_lowering():
        found = [FP16ComputePrecision._close_to_zero(value, kind) for value in (values, *values)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].any()
    assert not found[0].all()


def test_constants_worth_comparing() -> None:
    few, many = (const_deduplication._const_threshold + step for step in (-1, 0))
    values = [
        "text",
        np.bool_(True),
        True,
        np.float32(1),
        np.zeros(()),
        np.zeros(few),
        np.zeros(many),
        np.zeros((0, 9)),
    ]
    expected = [const_deduplication.should_be_deduplicated(value) for value in values]
    with while_lowering():
        assert [const_deduplication.should_be_deduplicated(value) for value in values] == expected
    assert [value.size for value, large in zip(values, expected, strict=True) if large] == [many]


@pytest.mark.parametrize("value", [*CONSTANTS[:-1], [True, False], [1, 2.5], (3, 1 << 40)], ids=repr)
def test_asking_for_all_results_again(value: Any) -> None:
    @Builder.program(input_specs=[Builder.TensorSpec((1, 2))])
    def program(x: Any) -> Any:
        return Builder.add(x=x, y=np.float32(2), name="y"), Builder.const(val=value, name="kept")

    operations = list(program.functions["main"].operations)
    results = [operation.outputs[0] for operation in operations]

    def asked() -> list[tuple[Any, str]]:
        for operation in operations:
            operation.type_value_inference(overwrite_output=True)
        return [(types.get_type_info(result.sym_type), repr(result.val)) for result in results]

    expected = asked()
    with while_lowering():
        assert asked() == expected
        for result in results:  # as a pass leaves them that writes into a result, not into the operation
            result._sym_val = types.fp32(3.0)
            result._sym_type = types.fp32
        assert asked() == expected


def test_properties_and_classes_are_put_back() -> None:
    before = [vars(Operation)["op_type"], vars(Var)["op"], vars(Const)["_get_type_val"]]

    def build() -> tuple[str, str, int]:
        @Builder.program(input_specs=[Builder.TensorSpec((1, 2))])
        def program(x: Any) -> Any:
            return Builder.relu(x=x, name="y")

        (operation,) = program.functions["main"].operations
        return operation.op_type, operation.outputs[0].op.name, len(operation.inputs["x"].child_ops)

    expected = build()
    with while_lowering():
        assert build() == expected == ("relu", "y", 1)
    assert [vars(Operation)["op_type"], vars(Var)["op"], vars(Const)["_get_type_val"]] == before
