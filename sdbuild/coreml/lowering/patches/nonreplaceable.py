"""Do not search a program for compressed constants, of which there are none before palettization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.block import Block
    from coremltools.converters.mil.mil.var import Var

    with (
        replaced(Block, "_propagate_nonreplaceable_vars", lambda block: None),
        replaced(Var, "_set_nonreplaceable_vars_upstream", lambda var: None),
    ):
        yield


PATCH = Patch(
    name="no search for compressed constants",
    why="whenever a pass leaves a block, coremltools searches all operations for them",
    without="conversion takes longer",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=(
        *known(
            "coremltools.converters.mil.mil.block",
            {
                "Block._propagate_nonreplaceable_vars": ("c7136a17014a3672",),
            },
        ),
        *known(
            "coremltools.converters.mil.mil.var",
            {
                "Var._set_nonreplaceable_vars_upstream": ("11e14076fb441761",),
            },
        ),
    ),
    made=_made,
)
