"""Compare numbers with zero without an array of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.passes.defs.quantization import AbstractQuantizationPass

    with replaced(AbstractQuantizationPass, "_close_to_zero", classmethod(_close_to_zero)):
        yield


def _close_to_zero(quantization: Any, values: Any, kind: Any) -> Any:
    """`numpy.isclose(values, 0)`, up to the smallest number of a type."""
    if kind not in quantization.type_eps:
        quantization.type_eps[kind] = np.finfo(kind).eps
        quantization.type_min[kind] = np.nextafter(0.0, 1.0, dtype=kind)
        quantization.type_negmin[kind] = np.nextafter(0.0, -1.0, dtype=kind)
    return np.abs(values) <= quantization.type_min[kind]


PATCH = Patch(
    name="near zero by one comparison",
    why="numpy.isclose builds several arrays for each number",
    without="conversion takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_close_to_zero",
    sources=known(
        "coremltools.converters.mil.mil.passes.defs.quantization",
        {
            "AbstractQuantizationPass._close_to_zero": ("b69323cf5ed66ab2",),
        },
    ),
    made=_made,
)
