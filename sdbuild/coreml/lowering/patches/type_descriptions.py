"""Build the description of a type once, not each time that a type is asked what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil import types

    described = cache(types.get_type_info)
    with ExitStack() as stack:
        for module in (types.type_mapping, types.type_list, types.type_state, types.type_tensor):
            stack.enter_context(replaced(module, "get_type_info", described))
        yield


PATCH = Patch(
    name="remembered descriptions of types",
    why="they are built from the element type up some hundred thousand times",
    without="conversion takes longer",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=known("coremltools.converters.mil.mil.types.get_type_info", {"get_type_info": ("83ce2f103cc0e1a9",)}),
    made=_made,
)
