"""Elementwise operations of one and two operands, comparisons, selection and casts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdbuild.coreml.runtime.kernels.registry import kernel
from sdbuild.coreml.runtime.types import STORAGE

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.true_divide,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


def _register_unary(operation: str, function: Callable[[Tensor], Tensor]) -> None:
    @kernel(operation)
    def unary(x: Tensor) -> Tensor:
        return function(x)


def _register_binary(operation: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @kernel(operation)
    def binary(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)


for _operation, _unary_function in _UNARY.items():
    _register_unary(_operation, _unary_function)
for _operation, _binary_function in _BINARY.items():
    _register_binary(_operation, _binary_function)


@kernel("inverse")
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@kernel("log")
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """ln(x + epsilon)."""
    return torch.log(x + epsilon)


@kernel("rsqrt")
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / √(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@kernel("threshold")
def threshold(x: Tensor, alpha: float) -> Tensor:
    """max(x, alpha)."""
    return torch.clamp(x, min=alpha)


@kernel("clip")
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(x, alpha), beta)."""
    return torch.clamp(x, min=alpha, max=beta)


@kernel("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """Another element type; a floating-point value loses its fraction when it becomes an integer.

    A copy even where the stored type stays the same: fp32 to fp16 is a rounding, which is done in place afterwards.
    """
    return x.to(STORAGE[dtype], copy=True)


@kernel("select", exact=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where `cond` holds, else `b`, all three broadcast against each other."""
    return torch.where(cond.bool(), a, b)
