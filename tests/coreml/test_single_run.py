"""Modules that change an input or return shared memory are told from those whose first run may be left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.export._trace

from sdbuild.coreml.lowering import export
from sdbuild.coreml.lowering.patches import single_run
from sdbuild.coreml.lowering.patches.single_run import ImpureModuleError, without_a_first_run
from sdbuild.tensors import TensorSpec
from tests.coreml.stock import unknown

INPUTS = [TensorSpec("x", (2, 3), "float32")]


class _Module(torch.nn.Module):
    def __init__(self, forward: Callable[[Any, torch.Tensor], tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(3))
        self._forward = forward

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._forward(self, x)


def _in_place(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.add_(1)
    return (x * 2,)


def _buffer(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    module.steps.add_(1)
    return (x * module.steps,)


def _twice(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    doubled = x * 2
    return (doubled, doubled.view(6))


def _intermediate(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x.mul(2).add_(1),)


def trace(forward: Callable[[Any, torch.Tensor], tuple[torch.Tensor, ...]], results: int) -> None:
    with without_a_first_run(results), torch.no_grad():
        torch.export._trace._export(_Module(forward), (torch.zeros(2, 3),), strict=False, pre_dispatch=False)


@pytest.mark.parametrize(
    ("forward", "results"),
    [(_in_place, 1), (_buffer, 1), (_twice, 2), (lambda module, x: (x.view(6),), 1), (lambda module, x: (x,), 1)],
    ids=["an input changes", "a buffer changes", "results share memory", "an input is viewed", "an input is returned"],
)
def test_an_impure_module_is_told(forward: Any, results: int) -> None:
    with pytest.raises(ImpureModuleError):
        trace(forward, results)


@pytest.mark.parametrize(
    "forward", [_intermediate, lambda module, x: (x * 2,)], ids=["a temporary changes", "nothing changes"]
)
def test_a_pure_module_is_not(forward: Any) -> None:
    trace(forward, 1)


def test_an_impure_module_is_traced_in_two_runs() -> None:
    exported = export.export(_Module(_buffer), INPUTS, 1)
    assert list(exported.graph_signature.buffers_to_mutate.values()) == ["steps"]


def test_the_graph_is_that_of_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    def forward(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nonlocal runs
        runs += 1
        return (x.mul(2).add_(module.steps).relu(),)

    once = export.export(_Module(forward), INPUTS, 1)
    assert runs == 1
    with monkeypatch.context() as patched:
        patched.setattr(single_run, "PATCH", unknown(single_run.PATCH))
        twice = export.export(_Module(forward), INPUTS, 1)
    assert runs == 3
    assert str(once.graph) == str(twice.graph)
    assert once.graph_signature == twice.graph_signature
