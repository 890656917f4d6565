"""Look up the class of an operation under a deployment target once, not by sorting the targets again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry, curr_opset_version

    look_up = SSAOpRegistry._get_core_op_cls

    @cache
    def under(target: Any, op_type: str) -> Any:
        return look_up(op_type)

    def remembered(op_type: Any = None) -> Any:
        return under(curr_opset_version(), op_type)

    with replaced(SSAOpRegistry, "_get_core_op_cls", staticmethod(remembered)):
        yield


PATCH = Patch(
    name="remembered classes of operations",
    why="the targets are sorted for every operation that is built",
    without="conversion takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_properties_and_classes_are_put_back",
    sources=known(
        "coremltools.converters.mil.mil.ops.registry",
        {
            "SSAOpRegistry._get_core_op_cls": ("f52ab18b778f6d61",),
            "curr_opset_version": ("677c128ab5f3c237",),
        },
    ),
    made=_made,
)
