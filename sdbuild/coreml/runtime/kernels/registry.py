"""How a kernel is declared, and the table of all of them.

A kernel is a plain function whose parameters carry the names of the operation's inputs in the MIL specification. Its
type hints decide what it is handed: a parameter typed ``Tensor`` gets a tensor, ``list[Tensor]`` a tuple input, and
every other one a Python value (an int, a float, a bool, a string, or lists of them), whether it comes from a constant
or is computed; ``tuple[int, ...]`` is a tuple input of such values. Defaults are the specification's.
"""

from __future__ import annotations

import inspect
import types as python_types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

ParameterKind = Literal["tensor", "tensors", "attribute", "attributes"]
Result = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Kernel:
    """One operation's implementation.

    Attributes:
        function: takes the operation's inputs by name, returns a tensor, or a tuple for several outputs.
        parameters: what each input is handed over as.
        required: the inputs without a default.
        exact: every value of the result is a value of an input, so that no rounding is due and results may be views.
        stored: constants are handed over in their stored element type instead of the one that results are kept in.
    """

    function: Callable[..., Result]
    parameters: Mapping[str, ParameterKind]
    required: frozenset[str]
    exact: bool
    stored: bool


KERNELS: dict[str, Kernel] = {}


def kernel(
    *operations: str, exact: bool = False, stored: bool = False
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Register the decorated function for MIL operations of these names.

    A function that is not `exact` must return memory of its own, because the runtime rounds its result in place.
    """

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        hints = get_type_hints(function)
        signature = inspect.signature(function)
        parameters = {name: _kind(hints[name]) for name in signature.parameters}
        required = frozenset(name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty)
        for operation in operations:
            KERNELS[operation] = Kernel(function, parameters, required, exact, stored)
        return function

    return register


def _kind(hint: Any) -> ParameterKind:
    options = get_args(hint) if get_origin(hint) in (Union, python_types.UnionType) else (hint,)
    if Tensor in options:
        return "tensor"
    if any(get_origin(option) is list and get_args(option) == (Tensor,) for option in options):
        return "tensors"
    return "attributes" if any(get_origin(option) is tuple for option in options) else "attribute"
