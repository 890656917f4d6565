"""What becomes of one checkpoint tensor: the steps between the stored values and the constant in the program.

An expression holds no values. It is evaluated when values are wanted: piece by piece while the weight file is written,
or at once for the few small tensors that a graph pass looks into.
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
_FEW = 1 << 16


@dataclass(frozen=True)
class Reshape:
    """Read the elements in row-major order into another shape."""

    shape: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view where the strides allow it."""
        return array.reshape(self.shape)


@dataclass(frozen=True)
class Transpose:
    """Permute the dimensions."""

    axes: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view."""
        return array.transpose(self.axes)


@dataclass(frozen=True)
class Index:
    """Take a part by integers and slices, a pair of position and (start, stop, step) a dimension."""

    key: tuple[int | tuple[int | None, int | None, int | None], ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view."""
        part: NDArray[Any] = array[tuple(part if isinstance(part, int) else slice(*part) for part in self.key)]
        return part


@dataclass(frozen=True)
class Cast:
    """Change the element type; to float16 with a range check."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """An elementwise operation with a second array, such as a scale that a pass folds into a convolution.

    Attributes:
        function: addition, subtraction, multiplication or division.
        operands: the arguments; None stands for the value so far.
    """

    function: np.ufunc
    operands: tuple[Any, ...]

    @property
    def scalar(self) -> bool:
        """Whether all elements meet the same number, so that their order does not matter."""
        return all(operand is None or np.size(operand) == 1 for operand in self.operands)

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The result, with the other arrays' values in memory."""
        return np.asarray(self.function(*(self._argument(operand, array) for operand in self.operands)))

    def _argument(self, operand: Any, array: NDArray[Any]) -> Any:
        if operand is None:
            return array
        value = operand.values() if hasattr(operand, "values") else operand
        return value.reshape(()) if isinstance(value, np.ndarray) and self.scalar else value


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
        if all(_commutes(step) for step in self.steps):
            array, steps = self._moved()
        else:
            array, steps = self.weight.read(), list(self.steps)
        for step in steps:
            array = self._apply(step, array)
        return array

    def pieces(self) -> Iterator[NDArray[Any]]:
        """The values in row-major order, in contiguous pieces of a bounded size."""
        if all(_commutes(step) for step in self.steps):
            array, steps = self._moved()
        else:
            array, steps = self.evaluate(), []
        widened_and_narrowed = array.dtype == np.float16 and steps == [Cast("float32"), Cast("float16")]
        for piece in _contiguous_pieces(array):
            if widened_and_narrowed:
                _check_finite(piece, self.weight.name)
                yield piece
                continue
            for step in steps:
                piece = self._apply(step, piece)
            yield piece

    def _apply(self, step: Step, array: NDArray[Any]) -> NDArray[Any]:
        return _cast(array, step.dtype, self.weight.name) if isinstance(step, Cast) else step.apply(array)

    def _moved(self) -> tuple[NDArray[Any], list[Step]]:
        """The stored elements in their final order, mostly a view of the checkpoint's map, and what is left to do.

        Casts and operations with one number treat all elements alike, so they may wait until all elements are in place.
        """
        array = self.weight.read()
        moves = [step for step in self.steps if isinstance(step, Reshape | Transpose | Index)]
        for step, following in zip_longest(moves, moves[1:]):
            head = _head_length(following)
            if isinstance(step, Reshape) and len(step.shape) == 1 and head is not None:
                # Flattening a transposed view copies it; the few elements that the next step takes need no copy.
                array = array.flat[:head]
            else:
                array = step.apply(array)
        return array, [step for step in self.steps if not isinstance(step, Reshape | Transpose | Index)]


def _commutes(step: Step) -> bool:
    return not isinstance(step, Arithmetic) or step.scalar


def _head_length(step: Step | None) -> int | None:
    """How many elements a step takes from the start of a one-dimensional array, if that is what it does."""
    if not isinstance(step, Index) or len(step.key) != 1 or not isinstance(step.key[0], tuple):
        return None
    start, stop, stride = step.key[0]
    return stop if start in (None, 0) and stride in (None, 1) and (stop or 0) > 0 else None


def _contiguous_pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Whole rows at a time, so that two arrays of one shape fall into the same pieces whatever their strides."""
    if array.ndim == 0:
        yield array.reshape(1)
        return
    rows = max(1, PIECE // max(1, prod(array.shape[1:])))
    for start in range(0, array.shape[0], rows):
        yield np.ascontiguousarray(array[start : start + rows])


def _cast(array: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Convert the element type; what is more than a few elements with torch, whose conversions are vectorised.

    Raises:
        ConversionError: a value is outside the range of float16, or no number.
    """
    if array.dtype == dtype:
        return array
    if array.size < _FEW or array.dtype.kind not in "fiu" or dtype not in ("float16", "float32"):
        if dtype == "float16":
            _check_range(array.min(initial=0), array.max(initial=0), name)
        return array.astype(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)  # the checkpoint's map is read-only, and nothing here writes
    if dtype == "float16":
        low, high = torch.aminmax(tensor)
        _check_range(low, high, name)
    result: NDArray[Any] = tensor.to(getattr(torch, dtype)).numpy()
    return result


def _check_range(low: Any, high: Any, name: str) -> None:
    low, high = float(low), float(high)
    if not (low >= -_LARGEST_HALF and high <= _LARGEST_HALF):
        raise ConversionError(
            f"{name}: values from {low:g} to {high:g} do not fit float16 (±65504); build this component with "
            f"`precision: float32`, or use a checkpoint made for half precision"
        )


def _check_finite(piece: NDArray[Any], name: str) -> None:
    """Half values fit half precision unless all bits of an exponent are set: an infinity, or no number.

    Those stand last among the positive values, which are the largest signed integers, and last among the negative
    values, which are the largest unsigned ones.
    """
    if piece.view(np.int16).max(initial=0) >= 0x7C00 or piece.view(np.uint16).max(initial=0) >= 0xFC00:
        wide = piece.astype(np.float32)
        _check_range(wide.min(), wide.max(), name)
