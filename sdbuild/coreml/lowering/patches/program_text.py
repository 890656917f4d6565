"""Print no program into log messages of a level that nobody sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.block import Block, Function

    with ExitStack() as stack:
        for kind in (Block, Function):
            stack.enter_context(replaced(kind, "__str__", lambda block: block.name))
        yield


PATCH = Patch(
    name="no programs as text",
    why="some passes print the whole program into messages that nobody sees",
    without="conversion takes longer",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=known(
        "coremltools.converters.mil.mil.block",
        {
            "Block.__str__": ("8bddd9869ccf3ae1",),
            "Function.__str__": ("039a5b74a6e354d5",),
        },
    ),
    made=_made,
)
