"""Translations of torch operators that coremltools 9.0's frontend lacks."""

from __future__ import annotations

from typing import Any


def register_missing_operators() -> None:
    """Teach the frontend the operators that exported graphs of recent torch versions hold. Idempotent."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    def alias(context: Any, node: Any) -> None:
        """A second name for one tensor (apple/coremltools#2517)."""
        context.add(Builder.identity(x=_get_inputs(context, node)[0], name=node.name))

    _TORCH_OPS_REGISTRY.name_to_func_mapping.setdefault("alias", alias)
