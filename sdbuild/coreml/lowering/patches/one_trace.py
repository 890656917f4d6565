"""Trace a module once, functionally, where torch's public way traces it three times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[Callable[..., Any]]:
    """The function that traces: what it takes is what `torch.export.export` takes."""
    from torch.export._trace import _export
    from torch.export.exported_program import (
        _override_composite_implicit_decomp,
        _split_decomp_table_to_cia_and_python_decomp,
    )

    kept, _ = _split_decomp_table_to_cia_and_python_decomp({})
    with _override_composite_implicit_decomp(kept):
        yield partial(_export, strict=False, pre_dispatch=False)


PATCH = Patch(
    name="one trace",
    why="torch.export.export and run_decompositions trace a module and then, twice, what came of it",
    without="tracing takes twice as long",
    equality_test="tests/coreml/test_single_run.py::test_the_graph_is_that_of_two_runs",
    sources=(
        *known(
            "torch.export._trace",
            {
                "_export": (
                    "da3f17d626a5bcc6",
                    "08565dc498a25b53",
                ),
                "_non_strict_export": (
                    "8b1de99a96543f80",
                    "366ca5cab73e6d65",
                ),
                "_export_to_aten_ir": ("5eb7317eb5018105",),
            },
        ),
        *known(
            "torch.export.exported_program",
            {
                "_override_composite_implicit_decomp": ("a291de287e76ba6e",),
                "_split_decomp_table_to_cia_and_python_decomp": ("b3862a9ea9db57ad",),
            },
        ),
    ),
    made=_made,
)
