"""Tracing what is repeated once gives the graph of tracing everything, also for modules that cannot be copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdbuild.coreml.lowering import export
from sdbuild.coreml.lowering.patches import repeated
from sdbuild.tensors import TensorSpec

INPUTS = [TensorSpec("x", (2, 4, 6), "float32"), TensorSpec("context", (2, 4, 6), "float32")]


class Block(nn.Module):
    """Two layers, a flag, and a number that tells how often it ran."""

    runs = 0

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.slope = slope

    def forward(self, x: Tensor, context: Tensor, *, turned: bool = False) -> tuple[Tensor, Tensor]:
        type(self).runs += 1
        return self.apply_to(self.first(x), context, turned), self.second(context)

    def apply_to(self, x: Tensor, context: Tensor, turned: bool) -> Tensor:
        x = nn.functional.leaky_relu(x, self.slope) + context
        return x.flip(1) if turned else x


class InPlace(Block):
    """Changes what it is given."""

    def apply_to(self, x: Tensor, context: Tensor, turned: bool) -> Tensor:
        context.mul_(2)
        return x + context


class Borrowing(Block):
    """Uses a parameter that is not its own."""

    lender: list[nn.Module]

    def apply_to(self, x: Tensor, context: Tensor, turned: bool) -> Tensor:
        return x * self.lender[0].gain + context


class Returning(Block):
    """Gives back a part of what it is given."""

    def forward(self, x: Tensor, context: Tensor, *, turned: bool = False) -> tuple[Tensor, Tensor]:
        x, context = super().forward(x, context, turned=turned)
        return x, context.view(2, 24).view(2, 4, 6)


class Pair(nn.Module):
    """A block around two blocks."""

    def __init__(self, make: Callable[[], Block]) -> None:
        super().__init__()
        self.one, self.two = make(), make()

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x, context = self.one(x, context)
        return self.two(x, context, turned=True)


class Model(nn.Module):
    """Blocks one after another."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor]:
        x, context = x * 1, context * 1
        for block in self.blocks:
            x, context = block(x, context)
        return (x + context,)


class Ending(Model):
    """Returns what its last block returns."""

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor]:
        for block in self.blocks:
            x, _ = block(x, context)
        return (x,)


def on_meta(make: Callable[[], Model]) -> Model:
    with torch.device("meta"):
        return make().eval().requires_grad_(False)


def graph_of(model: Model) -> list[tuple[Any, ...]]:
    """All that the lowering reads of a graph, with nodes numbered in order."""
    program = export.export(model, INPUTS, 1)
    numbers: dict[Any, int] = {}
    rows = []
    for node in program.graph.nodes:
        numbers[node] = len(numbers)
        arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda used: numbers[used])
        stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        value = node.meta.get("val")
        layout = (tuple(value.shape), value.stride()) if isinstance(value, torch.Tensor) else None
        name = node.name if node.op == "placeholder" else str(node.target)
        rows.append((node.op, name, str(arguments), stack, layout))
    results = [node.name for node in next(iter(reversed(program.graph.nodes))).args[0]]
    assert [spec.arg.name for spec in program.graph_signature.output_specs] == results
    return rows


def traced_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    with monkeypatch.context() as patch:
        patch.setattr(repeated, "_FEWEST_PARAMETERS", 1 << 30)
        return graph_of(model)


def lending(*blocks: Borrowing) -> Model:
    model = Model(*blocks)
    for block in blocks:
        block.lender = [model]
    return model


MODELS: dict[str, Callable[[], Model]] = {
    "twins": lambda: Model(Block(), Block(), Block()),
    "another attribute": lambda: Model(Block(), Block(0.2), Block()),
    "nested": lambda: Model(Pair(Block), Block(), Pair(Block), Pair(Block)),
    "the last is the result": lambda: Ending(Block(), Block()),
    "in place": lambda: Model(InPlace(), InPlace()),
    "a borrowed parameter": lambda: lending(Borrowing(), Borrowing()),
    "a view is returned": lambda: Model(Returning(), Returning()),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_that_of_tracing_everything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta(MODELS[name])
    assert graph_of(model) == traced_whole(model, monkeypatch)
    assert not any("forward" in part.__dict__ for part in model.modules())


def runs(name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(Block, "runs", 0)
    graph_of(on_meta(MODELS[name]))
    return Block.runs


def test_each_kind_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs("twins", monkeypatch) == 1
    assert runs("another attribute", monkeypatch) == 2
    # The calls of a block with and without `turned` differ.
    assert runs("nested", monkeypatch) == 2
