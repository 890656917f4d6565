"""Run coremltools' graph passes at the cost of their work alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.known_source import known


@contextmanager
def _made() -> Iterator[Callable[[Any, Any], None]]:
    """The runner, which takes a program and a pipeline."""
    yield run


def run(program: Any, pipeline: Any, started: Callable[[str], None] = lambda name: None) -> None:
    """Apply the passes of a pipeline in order.

    coremltools' own runner does the same, but prints the whole program into a log message that nobody sees, and after
    each of some hundred passes checks every operation of the program. Here the program is checked once, after the last
    pass, when it is serialised.
    """
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    pipeline.validate()
    for name in pipeline.passes:
        started(name)
        graph_pass = PASS_REGISTRY[name]
        graph_pass.set_options(pipeline.get_options(name))
        graph_pass(program)


PATCH = Patch(
    name="passes without checks in between",
    why="coremltools prints the program into a log message and checks every operation after each of a hundred passes",
    without="conversion takes longer",
    equality_test="tests/coreml/test_convert_equality.py",
    sources=known(
        "coremltools.converters.mil.mil.passes.pass_pipeline",
        {
            "PassPipelineManager.apply_pipeline": ("2ecfe5c5695850b8",),
        },
    ),
    made=_made,
)
