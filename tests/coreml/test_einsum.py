"""Remembered layouts of einsums are the layouts that torch computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sdbuild.coreml.lowering import export
from sdbuild.coreml.lowering.patches import einsum
from sdbuild.tensors import TensorSpec
from tests.coreml.stock import unknown

INPUTS = [TensorSpec("query", (2, 12, 1, 5), "float32"), TensorSpec("key", (2, 12, 1, 7), "float32")]


class _Heads(torch.nn.Module):
    """Three heads of four channels, which differ in where they begin, and a fourth that is laid out otherwise."""

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries = query.split([4, 4, 4], dim=1)
        keys = key.transpose(1, 3).split([4, 4, 4], dim=3)
        weights = [torch.einsum("bkhc,bchq->bkhq", k, q) for k, q in zip(keys, queries, strict=True)]
        weights.append(torch.einsum("bkhc,bchq->bkhq", keys[0].contiguous(), queries[0]))
        moved = torch.einsum("bchq->bqhc", queries[0])
        return (torch.cat(weights, dim=1), moved.reshape(2, 20) + 1, *(one.permute(0, 2, 3, 1) * 2 for one in weights))


@pytest.fixture(autouse=True)
def _nothing_remembered_by_torch() -> None:
    FakeTensorMode.cache_clear()


def layouts(exported: Any) -> list[Any]:
    def layout(value: Any) -> Any:
        if isinstance(value, FakeTensor):
            return value.shape, value.stride(), value.dtype, value.storage_offset()
        return [layout(part) for part in value] if isinstance(value, list | tuple) else None

    return [(node.name, str(node.target), layout(node.meta.get("val"))) for node in exported.graph.nodes]


def test_graph_and_layouts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = layouts(export.export(_Heads(), INPUTS, 6))
    with monkeypatch.context() as patched:
        patched.setattr(einsum, "PATCH", unknown(einsum.PATCH))
        FakeTensorMode.cache_clear()
        assert remembered == layouts(export.export(_Heads(), INPUTS, 6))


def test_equal_operands_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._export import utils

    assert einsum.PATCH.is_usable()  # before what it relies on is replaced
    computed: list[str] = []
    decomposition = utils._get_decomp_for_cia

    def counted(operator: Any) -> Any:
        compute = decomposition(operator)

        def count(equation: str, *arguments: Any, **options: Any) -> Any:
            computed.append(equation)
            return compute(equation, *arguments, **options)

        return count if operator is torch.ops.aten.einsum.default else compute

    monkeypatch.setattr(utils, "_get_decomp_for_cia", counted)
    export.export(_Heads(), INPUTS, 6)
    assert computed.count("bkhc,bchq->bkhq") == 2
    assert computed.count("bchq->bqhc") >= 1
