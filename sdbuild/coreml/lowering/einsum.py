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

from sdbuild.coreml.lowering.single_run import share_memory


@contextmanager
def remembering_layouts() -> Iterator[None]:
    """Remember the layouts of einsums' results for the time of one trace.

    Raises:
        ImportError: this version of torch takes no such rules.
    """
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
