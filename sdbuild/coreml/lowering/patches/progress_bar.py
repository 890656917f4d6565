"""Draw no progress bar into what mostly is a log file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdbuild.coreml.lowering.patches.patch import Patch, replaced
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[None]:
    from coremltools.converters.mil.frontend.torch import ops

    with replaced(ops, "_tqdm", lambda nodes, **options: nodes):
        yield


PATCH = Patch(
    name="no progress bar of the frontend's own",
    why="it fills the log of an action",
    without="the log has a progress bar",
    equality_test="tests/coreml/test_convert.py",
    sources=known("coremltools.converters.mil.frontend.torch.ops", {"convert_nodes": ("4e36bc8157c6e775",)}),
    made=_made,
)
