"""Translations of torch operators that coremltools 9.0's frontend lacks or gets wrong, by its own hook for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    register_missing_operators()
    yield


def register_missing_operators() -> None:
    """Teach the frontend the operators of exported graphs that it does not translate as they are. Idempotent."""
    from coremltools.converters.mil import Builder, register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    @register_torch_op(override=True)  # type: ignore[untyped-decorator]
    def alias(context: Any, node: Any) -> None:
        """A second name for one tensor (apple/coremltools#2517)."""
        context.add(Builder.identity(x=_get_inputs(context, node)[0], name=node.name))

    @register_torch_op(override=True)  # type: ignore[untyped-decorator]
    def gelu(context: Any, node: Any) -> None:
        """The approximation is a keyword in exported graphs, which the frontend's own translation overlooks."""
        value, *positional = _get_inputs(context, node)
        named = (node.kwinputs or {}).get("approximate", positional)
        tanh = any(getattr(approximate, "val", approximate) == "tanh" for approximate in named)
        context.add(Builder.gelu(x=value, mode="TANH_APPROXIMATION" if tanh else None, name=node.name))


PATCH = Patch(
    name="missing operators",
    why="the frontend has no alias, and translates every gelu as the exact one",
    without="a program could be a wrong one",
    equality_test="tests/coreml/test_runtime_components.py",
    sources=known(
        "coremltools.converters.mil.frontend.torch.ops",
        {
            "_get_inputs": ("b4d2af5444523b3c",),
        },
    ),
    made=_made,
    required=True,
)
