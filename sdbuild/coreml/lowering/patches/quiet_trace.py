"""Leave out what tracing does for the sake of a reader: stack traces, and Python source of each stage's graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    import torch
    from torch.fx._lazy_graph_module import _use_lazy_graph_module

    emitted = torch.fx.config.do_not_emit_stack_traces
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        with _use_lazy_graph_module(True):
            yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = emitted


PATCH = Patch(
    name="tracing without source",
    why="nobody reads the traces and the source that torch makes at each stage",
    without="tracing takes longer",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=known(
        "torch.fx._lazy_graph_module",
        {
            "_use_lazy_graph_module": ("70bc501014491c8e",),
            "_make_graph_module": ("925e2e042335a0e2",),
        },
    ),
    made=_made,
)
