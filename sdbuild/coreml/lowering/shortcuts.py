"""Small functions of coremltools that are called some million times, with the same results in less time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from operator import attrgetter
from typing import Any

import numpy as np

from sdbuild.coreml.lowering.passes import replaced

# Scalars and arrays of these types become constants as they are; all others may be narrowed to 32 bits.
_KEPT_SCALARS = frozenset({str, bool, np.bool_, np.float16, np.float32, np.int32})
_KEPT_ELEMENTS = frozenset("efi?")


@contextmanager
def in_force() -> Iterator[None]:
    """Take the shortcuts for the time of one conversion.

    - An attribute that a property only returns is fetched without a call of Python.
    - The class of an operation under a deployment target is looked up once, not by sorting the targets again.
    - The limits of 32-bit integers, which a constant must lie within, are asked for only where they may be exceeded.
    - Numbers are compared with zero without an array of zeros.
    - The elements of a constant are not counted anew to see whether it is small.
    - A constant that still has the value it was made with is left out when a pass asks for all results again.
    """
    from coremltools.converters.mil.mil import Operation, Var
    from coremltools.converters.mil.mil.ops.defs.iOS15.control_flow import Const
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
    from coremltools.converters.mil.mil.passes.defs.cleanup.const_deduplication import const_deduplication
    from coremltools.converters.mil.mil.passes.defs.quantization import AbstractQuantizationPass

    returned = [
        (Operation, "op_type", "__class__.__name__"),
        (Operation, "outputs", "_output_vars"),
        (Var, "sym_type", "_sym_type"),
        (Var, "op", "_op"),
        (Var, "child_ops", "_child_ops"),
    ]
    with ExitStack() as stack:
        for owner, name, attribute in returned:
            stack.enter_context(replaced(owner, name, property(attrgetter(attribute))))
        stack.enter_context(replaced(SSAOpRegistry, "_get_core_op_cls", staticmethod(_remembered_classes())))
        stack.enter_context(replaced(Const, "_get_type_val", _type_and_value(Const._get_type_val)))
        stack.enter_context(replaced(Operation, "type_value_inference", _inferred(Operation.type_value_inference)))
        large = staticmethod(partial(_is_large, const_deduplication._const_threshold))
        stack.enter_context(replaced(const_deduplication, "should_be_deduplicated", large))
        close_to_zero = classmethod(_close_to_zero)
        stack.enter_context(replaced(AbstractQuantizationPass, "_close_to_zero", close_to_zero))
        yield


def _remembered_classes() -> Any:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry, curr_opset_version

    look_up = SSAOpRegistry._get_core_op_cls

    @cache
    def under(target: Any, op_type: str) -> Any:
        return look_up(op_type)

    return lambda op_type=None: under(curr_opset_version(), op_type)


def _type_and_value(original: Any) -> Any:
    from coremltools.converters.mil.mil.types.type_mapping import numpy_val_to_builtin_val

    def type_and_value(op: Any, value: Any) -> Any:
        kept = value.dtype.char in _KEPT_ELEMENTS if isinstance(value, np.ndarray) else type(value) in _KEPT_SCALARS
        return (numpy_val_to_builtin_val(value)[1], value) if kept else original(op, value)

    return type_and_value


def _inferred(original: Any) -> Any:
    def type_value_inference(op: Any, overwrite_output: bool = False) -> None:
        if not (overwrite_output and op.op_type == "const" and _is_settled(op.val.sym_val, op.outputs[0].sym_val)):
            original(op, overwrite_output)

    return type_value_inference


def _is_settled(given: Any, result: Any) -> bool:
    """Whether a constant's result is certainly what its value is narrowed to."""
    if given is result:
        return True
    kind = type(given)
    if kind is int:
        return type(result) is np.int32 and bool(result == given)
    if kind is float:
        return type(result) is np.float32 and bool(result == np.float32(given))
    integers = kind in (list, tuple) and {*map(type, given)} == {int}
    return integers and isinstance(result, np.ndarray) and result.dtype == np.int32 and result.tolist() == [*given]


def _is_large(threshold: int, value: Any) -> bool:
    return not isinstance(value, str | bool) and value.size >= threshold


def _close_to_zero(quantization: Any, values: Any, kind: Any) -> Any:
    """`numpy.isclose(values, 0)`, up to the smallest number of a type."""
    if kind not in quantization.type_eps:
        quantization.type_eps[kind] = np.finfo(kind).eps
        quantization.type_min[kind] = np.nextafter(0.0, 1.0, dtype=kind)
        quantization.type_negmin[kind] = np.nextafter(0.0, -1.0, dtype=kind)
    return np.abs(values) <= quantization.type_min[kind]
