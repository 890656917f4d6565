"""Leave weights out when an operation is searched for numbers that half precision cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.deferred import DeferredArray
from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    overflows = FP16ComputePrecision.fp16_overflow

    def fp16_overflow(op: Any) -> bool:
        given = op.get_flattened_inputs()
        rest = [var for var in given if not _is_deferred_constant(var)]
        return bool(overflows(op if len(rest) == len(given) else _Inputs({str(i): var for i, var in enumerate(rest)})))

    with replaced(FP16ComputePrecision, "fp16_overflow", staticmethod(fp16_overflow)):
        yield


class _Inputs:
    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs


def _is_deferred_constant(var: Any) -> bool:
    return var.op is not None and var.op.op_type == "const" and isinstance(var.op.val.val, DeferredArray)


PATCH = Patch(
    name="no search of weights for overflows",
    why="their range is checked when they are written, where an overflow is an error",
    without="conversion reads every weight",
    equality_test="tests/coreml/test_convert_constants.py",
    sources=known(
        "coremltools.converters.mil.mil.passes.defs.quantization",
        {
            "FP16ComputePrecision.fp16_overflow": ("cb602f545f058ad2",),
        },
    ),
    made=_made,
)
