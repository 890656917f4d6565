"""Tell what an einsum returns, while a module is traced, from an einsum of the same operands that came before.

torch finds shape and strides of an einsum's result by going through the dozen operations that it consists of. It
remembers results, but tells operands apart by where they begin in memory, and each head's queries, keys and values
begin elsewhere. With one einsum a head and piece that takes a fifth of the time of tracing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sdbuild.coreml.lowering.patches.patch import Patch
from sdbuild.coreml.lowering.patches.single_run import share_memory
from sdbuild.known_source import known


@contextmanager
def remembering_layouts() -> Iterator[None]:
    """Remember the layouts of einsums' results for the time of one trace."""
    from torch._export.utils import _get_decomp_for_cia
    from torch._subclasses.fake_impls import _deregister_op_impl, register_op_impl

    einsum = torch.ops.aten.einsum.default
    compute = _get_decomp_for_cia(einsum)
    layouts: dict[Any, tuple[torch.Size, tuple[int, ...]]] = {}

    def result(mode: Any, operator: Any, equation: str, operands: Sequence[torch.Tensor], **options: Any) -> Any:
        key = (equation, *((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in operands))
        known = None if options else layouts.get(key)
        with mode:
            if known is not None:
                return torch.empty_strided(*known, dtype=operands[0].dtype, device=operands[0].device)
            computed = compute(equation, operands, **options)
        if not options and not share_memory(operands, [computed]):
            layouts[key] = (computed.shape, computed.stride())
        return computed

    register_op_impl(einsum)(result)
    try:
        yield
    finally:
        _deregister_op_impl(einsum)


PATCH = Patch(
    name="remembered layouts of einsums",
    why="with one einsum a head and piece, torch computes the same layout some thousand times",
    without="tracing takes longer",
    equality_test="tests/coreml/test_einsum.py::test_graph_and_layouts_are_the_same",
    sources=(
        *known(
            "torch._export.utils",
            {
                "_get_decomp_for_cia": (
                    "715272c464b4a73b",
                    "7a414ddfde2e430b",
                ),
            },
        ),
        *known(
            "torch._subclasses.fake_impls",
            {
                "register_op_impl": (
                    "f39a04b618a36a01",
                    "91c8be19dcd0341d",
                ),
                "_deregister_op_impl": (
                    "ece356119fe90628",
                    "21703f392b40f63c",
                ),
                "_is_op_registered_to_fake_rule": ("7ffab89e80ee5fc1",),
            },
        ),
    ),
    made=remembering_layouts,
)
