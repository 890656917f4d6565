"""Fetch an attribute that a property only returns without a call of Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil import Operation, Var

    with ExitStack() as stack:
        for owner, name, attribute in (
            (Operation, "op_type", "__class__.__name__"),
            (Operation, "outputs", "_output_vars"),
            (Var, "sym_type", "_sym_type"),
            (Var, "op", "_op"),
            (Var, "child_ops", "_child_ops"),
        ):
            stack.enter_context(replaced(owner, name, property(attrgetter(attribute))))
        yield


PATCH = Patch(
    name="attributes without calls",
    why="these properties are read some million times",
    without="conversion takes longer",
    equality_test="tests/coreml/test_shortcuts.py::test_properties_and_classes_are_put_back",
    sources=(
        *known(
            "coremltools.converters.mil.mil.operation",
            {
                "Operation.op_type": ("2b447189da4ec0ca",),
                "Operation.outputs": ("1e8ee5c4a6959442",),
            },
        ),
        *known(
            "coremltools.converters.mil.mil.var",
            {
                "Var.sym_type": ("e9773ea6d8b1f32b",),
                "Var.op": ("4efafd9c3f9de102",),
                "Var.child_ops": ("c1d2d69aad1109c4",),
            },
        ),
    ),
    made=_made,
)
