"""Do not count the elements of a constant anew to see whether it is small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.passes.defs.cleanup.const_deduplication import const_deduplication

    large = staticmethod(partial(_is_large, const_deduplication._const_threshold))
    with replaced(const_deduplication, "should_be_deduplicated", large):
        yield


def _is_large(threshold: int, value: Any) -> bool:
    return not isinstance(value, str | bool) and value.size >= threshold


PATCH = Patch(
    name="sizes of constants as they are known",
    why="they are counted for every constant",
    without="conversion takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_constants_worth_comparing",
    sources=known(
        "coremltools.converters.mil.mil.passes.defs.cleanup.const_deduplication",
        {
            "const_deduplication.should_be_deduplicated": ("6b09162931899e22",),
        },
    ),
    made=_made,
)
