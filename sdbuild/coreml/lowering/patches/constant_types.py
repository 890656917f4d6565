"""Ask for the limits of 32-bit integers, which a constant must lie within, only where they may be exceeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known

# Scalars and arrays of these types become constants as they are; all others may be narrowed to 32 bits.
_KEPT_SCALARS = frozenset({str, bool, np.bool_, np.float16, np.float32, np.int32})
_KEPT_ELEMENTS = frozenset("efi?")


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.ops.defs.iOS15.control_flow import Const

    with replaced(Const, "_get_type_val", _type_and_value(Const._get_type_val)):
        yield


def _type_and_value(original: Any) -> Any:
    from coremltools.converters.mil.mil.types.type_mapping import numpy_val_to_builtin_val

    def type_and_value(op: Any, value: Any) -> Any:
        kept = value.dtype.char in _KEPT_ELEMENTS if isinstance(value, np.ndarray) else type(value) in _KEPT_SCALARS
        return (numpy_val_to_builtin_val(value)[1], value) if kept else original(op, value)

    return type_and_value


PATCH = Patch(
    name="constants of small types as they are",
    why="for that every constant's values are read and searched",
    without="conversion reads every weight, and takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_constants",
    sources=(
        *known(
            "coremltools.converters.mil.mil.ops.defs.iOS15.control_flow",
            {
                "Const._get_type_val": ("23e1318f87283e4b",),
            },
        ),
        *known(
            "coremltools.converters.mil.mil.types.type_mapping",
            {
                "numpy_val_to_builtin_val": ("548014bc8ade1048",),
            },
        ),
    ),
    made=_made,
)
