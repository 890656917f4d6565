"""Translations of torch operators that coremltools 9.0's frontend lacks or gets wrong."""

from __future__ import annotations

from typing import Any


def register_missing_operators() -> None:
    """Teach the frontend the operators of exported graphs that it does not translate as they are. Idempotent."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    def alias(context: Any, node: Any) -> None:
        """A second name for one tensor (apple/coremltools#2517)."""
        context.add(Builder.identity(x=_get_inputs(context, node)[0], name=node.name))

    def gelu(context: Any, node: Any) -> None:
        """The approximation is a keyword in exported graphs, which the frontend's own translation overlooks."""
        value, *positional = _get_inputs(context, node)
        named = (node.kwinputs or {}).get("approximate", positional)
        tanh = any(getattr(approximate, "val", approximate) == "tanh" for approximate in named)
        context.add(Builder.gelu(x=value, mode="TANH_APPROXIMATION" if tanh else None, name=node.name))

    _TORCH_OPS_REGISTRY.name_to_func_mapping.setdefault("alias", alias)
    _TORCH_OPS_REGISTRY.name_to_func_mapping["gelu"] = gelu
