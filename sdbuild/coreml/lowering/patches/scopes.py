"""Copy the names of an operation's scopes as the short lists that they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.mil.var import Var

    with replaced(Var, "scopes", Var.scopes.setter(_set_scopes)):
        yield


def _set_scopes(var: Any, scopes: Any) -> None:
    if var.op is None:
        raise ValueError(f"cannot set the scopes of the function input {var.name}")
    var.op.scopes = defaultdict(list, {source: list(names) for source, names in scopes.items()})


PATCH = Patch(
    name="short copies of scopes",
    why="they are copied as if they could hold anything, for each of thousands of operations",
    without="conversion takes longer",
    equality_test="tests/coreml/test_convert.py",
    sources=known("coremltools.converters.mil.mil.var", {"Var.scopes": ("8e4f4b1a1a2b935d",)}),
    made=_made,
)
