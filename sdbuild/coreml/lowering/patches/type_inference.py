"""Leave out a constant that still has the value it was made with when a pass asks for all results again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil import Operation

    with replaced(Operation, "type_value_inference", _inferred(Operation.type_value_inference)):
        yield


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


PATCH = Patch(
    name="constants are inferred once",
    why="their values are read anew each time that a pass asks for all results",
    without="conversion takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_asking_for_all_results_again",
    sources=known(
        "coremltools.converters.mil.mil.operation",
        {
            "Operation.type_value_inference": ("38339d32fbb3a6c6",),
            "Operation._auto_val": ("762acf9a5358be88",),
        },
    ),
    made=_made,
)
