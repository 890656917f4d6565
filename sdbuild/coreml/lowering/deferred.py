"""Constants without values: what coremltools sees in place of a weight.

A `DeferredArray` is a `numpy.ndarray` of the right shape and type whose elements all lie on one NaN, so it takes no
memory however large it is. Operations that only move or rescale elements return another deferred array with one more
step in its expression. Every other operation gets the real values, read for that moment from the checkpoint, and the
place that asked is recorded, so that nothing can go wrong silently and everything that wants values can be named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sdbuild.coreml.lowering.expression import (
    Arithmetic,
    Cast,
    Expression,
    Index,
    Reshape,
    Transpose,
)
from sdbuild.tensors import Weight

SMALL = 4096
"""Parts and products of fewer elements are computed at once."""

_NAN = {dtype: np.full((), np.nan, dtype) for dtype in ("float16", "float32")}


@dataclass(frozen=True)
class Reading:
    """One moment at which values were wanted.

    Attributes:
        weight: the tensor's name in the checkpoint.
        elements: how many elements were read.
        place: the function of coremltools that asked, as `module.function`.
    """

    weight: str
    elements: int
    place: str


readings: list[Reading] = []
"""Every reading since the last conversion began."""


class DeferredArray(np.ndarray[Any, Any]):
    """An array whose values stand in a checkpoint."""

    expression: Expression | None

    @classmethod
    def of(cls, weight: Weight) -> DeferredArray:
        """The float32 parameter that a stored tensor of any float type becomes."""
        return cls._build(tuple(weight.shape), "float32", Expression(weight, (Cast("float32"),)))

    @classmethod
    def _build(cls, shape: tuple[int, ...], dtype: str, expression: Expression) -> DeferredArray:
        array = np.ndarray.__new__(cls, shape, dtype, _NAN[dtype], strides=(0,) * len(shape))
        array.flags.writeable = False
        array.expression = expression
        return array

    def __array_finalize__(self, other: object) -> None:
        self.expression = None

    @property
    def source(self) -> Expression:
        """The expression; arrays that numpy made from this one without our knowledge have none."""
        if self.expression is None:
            raise AssertionError("a deferred constant was copied or viewed in a way that loses its origin")
        return self.expression

    def values(self) -> NDArray[Any]:
        """The real values, recorded as a reading."""
        readings.append(Reading(self.source.weight.name, self.size, _place()))
        values = self.source.evaluate()
        assert values.shape == self.shape, (values.shape, self.shape)
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        return values

    # Steps that move elements.

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:  # type: ignore[override]
        """The elements in row-major order in another shape."""
        if order != "C":
            return self.values().reshape(*shape, order=order)  # type: ignore[call-overload]
        target = tuple(int(size) for size in (shape[0] if len(shape) == 1 and np.iterable(shape[0]) else shape))
        if -1 in target:
            rest = -prod(target)
            target = tuple(self.size // rest if size == -1 else size for size in target)
        if prod(target) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {target}")
        return self._build(target, self.dtype.name, self.source.then(Reshape(target)))

    def transpose(self, *axes: Any) -> Any:
        """The dimensions in another order."""
        order = axes[0] if len(axes) == 1 and (axes[0] is None or np.iterable(axes[0])) else axes
        order = tuple(int(axis) % self.ndim for axis in order or range(self.ndim)[::-1])
        shape = tuple(self.shape[axis] for axis in order)
        return self._build(shape, self.dtype.name, self.source.then(Transpose(order)))

    @property
    def T(self) -> Any:  # noqa: N802
        """The dimensions reversed."""
        return self.transpose()

    def swapaxes(self, first: Any, second: Any) -> Any:
        """Two dimensions exchanged."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.transpose(order)

    def squeeze(self, axis: Any = None) -> Any:
        """Without dimensions of size 1."""
        if axis is None:
            drop = [position for position, size in enumerate(self.shape) if size == 1]
        else:
            drop = [int(position) % self.ndim for position in (axis if np.iterable(axis) else (axis,))]
        return self.reshape([size for position, size in enumerate(self.shape) if position not in drop])

    def ravel(self, order: Any = "C") -> Any:
        """One dimension."""
        return self.reshape(-1) if order == "C" else self.values().ravel(order)

    flatten = ravel

    def astype(self, dtype: Any, *arguments: Any, **options: Any) -> Any:
        """Another float type; to any other type, real values."""
        name = np.dtype(dtype).name
        if name == self.dtype.name:
            return self
        if name not in _NAN:
            return self.values().astype(dtype, *arguments, **options)
        return self._build(self.shape, name, self.source.then(Cast(name)))

    def copy(self, order: Any = "C") -> Any:
        """Itself: a deferred array never changes."""
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, int | np.integer | slice) for part in parts):
            return self.values()[key]
        described = tuple(
            (part.start, part.stop, part.step) if isinstance(part, slice) else int(part) for part in parts
        )
        expression = self.source.then(Index(described))
        shape = np.broadcast_to(_NAN["float32"], self.shape)[key].shape
        part = self._build(shape, self.dtype.name, expression)
        return part.values() if part.size < SMALL or not shape else part

    # Everything else: real values.

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        moved = _MOVES.get(function)
        if moved is not None:
            return moved(*arguments, **options)
        return function(*materialised(arguments), **materialised(options))

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *operands: Any, **options: Any) -> Any:
        if method == "__call__" and not options:
            if ufunc in (np.equal, np.not_equal) and _same(*operands):
                return np.full((1,) * self.ndim, ufunc(0, 0))  # as any() and all() see it
            if ufunc in (np.multiply, np.true_divide, np.add, np.subtract):
                scaled = self._rescaled(ufunc, operands)
                if scaled is not None:
                    return scaled
        return getattr(ufunc, method)(*materialised(operands), **materialised(options))

    def _rescaled(self, function: np.ufunc, operands: tuple[Any, ...]) -> DeferredArray | None:
        shape = np.broadcast_shapes(*(np.shape(operand) for operand in operands))
        dtype = np.result_type(*operands).name
        if shape != self.shape or self.size < SMALL or dtype not in _NAN:
            return None
        position = next(index for index, operand in enumerate(operands) if operand is self)
        others = tuple(None if index == position else operand for index, operand in enumerate(operands))
        return self._build(shape, dtype, self.source.then(Arithmetic(function, others)))

    def __repr__(self) -> str:
        return f"DeferredArray({self.source.weight.name}, {self.shape}, {self.dtype})"

    __str__ = __repr__


def _with_values(name: str) -> Callable[..., Any]:
    def method(self: DeferredArray, *arguments: Any, **options: Any) -> Any:
        return getattr(self.values(), name)(*materialised(arguments), **materialised(options))

    method.__name__ = name
    return method


_READ_VALUES = """
    all any argmax argmin argpartition argsort byteswap choose clip compress cumprod cumsum diagonal dot dump dumps item
    max mean min nonzero prod repeat round searchsorted std sum take tobytes tofile tolist trace var view
    __array__ __bool__ __complex__ __contains__ __float__ __index__ __int__ __iter__ __reduce__ __reduce_ex__
"""
for _name in _READ_VALUES.split():
    setattr(DeferredArray, _name, _with_values(_name))


def _reshape(array: Any, *shape: Any, **options: Any) -> Any:
    return array.reshape(*shape, **options)


def _transpose(array: Any, axes: Any = None) -> Any:
    return array.transpose(axes)


def _squeeze(array: Any, axis: Any = None) -> Any:
    return array.squeeze(axis)


def _expand_dims(array: Any, axis: Any) -> Any:
    axes = [int(position) for position in (axis if np.iterable(axis) else (axis,))]
    shape = list(array.shape)
    for position in sorted(position % (len(shape) + len(axes)) for position in axes):
        shape.insert(position, 1)
    return array.reshape(shape)


def _allclose(first: Any, second: Any, **options: Any) -> bool:
    """Compare piece by piece, so that two large constants never stand in memory."""
    if _same(first, second):
        return True
    return all(np.allclose(one, other, **options) for one, other in zip(_pieces(first), _pieces(second), strict=True))


def _pieces(array: Any) -> Iterator[NDArray[Any]]:
    if isinstance(array, DeferredArray):
        readings.append(Reading(array.source.weight.name, array.size, _place()))
        return array.source.pieces()
    return Expression(_Held(array), ()).pieces()


@dataclass(frozen=True)
class _Held:
    """An array in memory, with the interface of a weight."""

    array: NDArray[Any]
    name: str = "constant"

    def read(self) -> NDArray[Any]:
        return self.array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> str:
        return self.array.dtype.name

    def done(self) -> None:
        return


_MOVES: dict[Any, Callable[..., Any]] = {
    np.reshape: _reshape,
    np.transpose: _transpose,
    np.squeeze: _squeeze,
    np.expand_dims: _expand_dims,
    np.copy: lambda array, **_: array,
    np.ravel: lambda array, order="C": array.ravel(order),
    np.swapaxes: lambda array, first, second: array.swapaxes(first, second),
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.size: lambda array, axis=None: array.size if axis is None else array.shape[axis],
    np.result_type: lambda *arguments: np.result_type(
        *(argument.dtype if isinstance(argument, np.ndarray) else argument for argument in arguments)
    ),
    np.allclose: _allclose,
}


def _same(first: Any, second: Any) -> bool:
    return (
        isinstance(first, DeferredArray)
        and isinstance(second, DeferredArray)
        and first.source == second.source
        and first.shape == second.shape
    )


def materialised(value: Any) -> Any:
    """The same arguments with real values in place of deferred arrays."""
    if isinstance(value, DeferredArray):
        return value.values()
    if isinstance(value, tuple | list):
        return type(value)(materialised(item) for item in value)
    if isinstance(value, dict):
        return {key: materialised(item) for key, item in value.items()}
    return value


def _place() -> str:
    """The innermost function of coremltools on the stack."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("coremltools."):
            return f"{module.removeprefix('coremltools.converters.mil.')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "sdbuild"
