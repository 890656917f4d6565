"""Convert in steps, so that a program can be looked at and written by other means than coremltools' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made(main: Any) -> Iterator[tuple[Any, ...]]:
    """The pipelines before, at and after the main one, for a conversion that leaves nothing behind for the next."""
    from coremltools.converters.mil import converter

    before, after = converter._construct_other_pipelines(main, "pytorch", "mlprogram")
    converter._reset_conversion_state()
    yield before, main, after
    converter._reset_conversion_state()


PATCH = Patch(
    name="conversion in steps",
    why="coremltools.convert ends with a package on disk, for which every weight must be in memory",
    without="there would be no program",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=(
        *known(
            "coremltools.converters.mil.converter",
            {
                "_construct_other_pipelines": ("a7e3100aadd462d0",),
                "_reset_conversion_state": ("8487a432b1e7653d",),
            },
        ),
    ),
    made=_made,
    required=True,
)
