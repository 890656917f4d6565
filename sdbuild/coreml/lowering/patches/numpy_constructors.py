"""Let `numpy.array` and its relatives, which never ask a subclass, pass deferred arrays through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sdbuild.coreml.lowering.deferred import DeferredArray, materialised
from sdbuild.coreml.lowering.patches.patch import Patch


@contextmanager
def keeping_deferred_arrays() -> Iterator[None]:
    """Let `np.array` and its relatives, which never ask a subclass, pass deferred arrays through."""
    originals = {name: getattr(np, name) for name in ("array", "asarray", "asanyarray")}
    contiguous = np.ascontiguousarray

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def construct(value: Any, dtype: Any = None, *arguments: Any, **options: Any) -> Any:
            if isinstance(value, DeferredArray):
                return value if dtype is None else value.astype(dtype)
            return original(value, dtype, *arguments, **options)

        return construct

    for name, original in originals.items():
        setattr(np, name, guarded(original))
    np.ascontiguousarray = lambda value, *arguments, **options: contiguous(  # type: ignore[assignment]
        materialised(value) if isinstance(value, DeferredArray) else value, *arguments, **options
    )
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(np, name, original)
        np.ascontiguousarray = contiguous


PATCH = Patch(
    name="deferred arrays through numpy's constructors",
    why="coremltools calls them on constants, and they would read every weight",
    without="every weight is read while the graph is lowered",
    equality_test="tests/coreml/test_convert_constants.py",
    sources=(),  # all public
    made=keeping_deferred_arrays,
)
