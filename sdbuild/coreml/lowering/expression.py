"""What becomes of one checkpoint tensor: the steps between the stored values and the constant in the program.

An expression holds no values. It is evaluated when values are wanted: piece by piece while the weight file is written, or
at once for the few small tensors that a graph pass looks into.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.tensors import Weight

PIECE = 1 << 20
"""Elements of a piece: small enough that range check and cast find it in the processor's cache."""

_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Reshape:
    """Read the elements in row-major order into another shape."""

    shape: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(self.shape)


@dataclass(frozen=True)
class Transpose:
    """Permute the dimensions."""

    axes: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.transpose(self.axes)


@dataclass(frozen=True)
class Index:
    """Take a part by integers and slices, a pair of position and (start, stop, step) a dimension."""

    key: tuple[int | tuple[int | None, int | None, int | None], ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[tuple(part if isinstance(part, int) else slice(*part) for part in self.key)]


@dataclass(frozen=True)
class Cast:
    """Change the element type; to float16 with a range check."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """An elementwise operation with a second array, such as a scale that a pass folds into a convolution."""

    function: np.ufunc
    operands: tuple[Any, ...]
    """The arguments; None stands for the value so far."""

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        arguments = [
            array if operand is None else (operand.values() if hasattr(operand, "values") else operand)
            for operand in self.operands
        ]
        return np.asarray(self.function(*arguments))


Step = Reshape | Transpose | Index | Cast | Arithmetic


@dataclass(frozen=True)
class Expression:
    """A checkpoint tensor and the steps that lead from it to a constant."""

    weight: Weight
    steps: tuple[Step, ...]

    def then(self, step: Step) -> Expression:
        """This expression followed by one more step."""
        return Expression(self.weight, (*self.steps, step))

    def evaluate(self) -> NDArray[Any]:
        """All values, in memory of their own or as a view of the checkpoint's map."""
        if self._rescaled:
            array = self.weight.read()
            for step in self.steps:
                array = _cast(array, step.dtype, self.weight.name) if isinstance(step, Cast) else step.apply(array)
            return array
        array, casts = self._moved()
        for dtype in casts:
            array = _cast(array, dtype, self.weight.name)
        return array

    def pieces(self) -> Iterator[NDArray[Any]]:
        """The values in row-major order, in contiguous pieces of a bounded size."""
        array, casts = (self.evaluate(), []) if self._rescaled else self._moved()
        for piece in _contiguous_pieces(array):
            for dtype in casts:
                piece = _cast(piece, dtype, self.weight.name)
            yield piece

    @property
    def _rescaled(self) -> bool:
        return any(isinstance(step, Arithmetic) for step in self.steps)

    def _moved(self) -> tuple[NDArray[Any], list[str]]:
        """The stored elements in their final order, which mostly is a view of the checkpoint's map, and the casts to do.

        Casts are elementwise, so they commute with the steps that only move elements.
        """
        array = self.weight.read()
        moves = [step for step in self.steps if not isinstance(step, Cast)]
        for step, following in zip_longest(moves, moves[1:]):
            if isinstance(step, Reshape) and len(step.shape) == 1 and _is_head(following):
                # Flattening a transposed view copies it; the few elements that the next step takes need no copy.
                array = array.flat[: following.key[0][1]]  # type: ignore[union-attr,index]
            else:
                array = step.apply(array)
        return array, [step.dtype for step in self.steps if isinstance(step, Cast)]


def _is_head(step: object) -> bool:
    """Whether a step takes the first elements of a one-dimensional array."""
    if not isinstance(step, Index) or len(step.key) != 1:
        return False
    part = step.key[0]
    return isinstance(part, tuple) and part[0] in (None, 0) and part[2] in (None, 1) and (part[1] or 0) > 0


def _contiguous_pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Whole rows at a time, so that two arrays of one shape fall into the same pieces whatever their strides."""
    if array.ndim == 0:
        yield array.reshape(1)
        return
    rows = max(1, PIECE // max(1, prod(array.shape[1:])))
    for start in range(0, array.shape[0], rows):
        yield np.ascontiguousarray(array[start : start + rows])


def _cast(array: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Convert the element type with torch, whose conversions are vectorised.

    Raises:
        ConversionError: a value is outside the range of float16, or no number.
    """
    if array.dtype == dtype:
        return array
    if array.size == 0 or array.dtype.kind not in "fiu" or dtype not in ("float16", "float32"):
        return array.astype(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)  # the checkpoint's map is read-only, and nothing here writes
    if dtype == "float16":
        low, high = (float(value) for value in torch.aminmax(tensor))
        if not (low >= -_LARGEST_HALF and high <= _LARGEST_HALF):
            raise ConversionError(
                f"{name}: values from {low:g} to {high:g} do not fit float16 (±65504); build this component with "
                f"`precision: float32`, or use a checkpoint made for half precision"
            )
    result: NDArray[Any] = tensor.to(getattr(torch, dtype)).numpy()
    return result
