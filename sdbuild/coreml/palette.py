"""The numbers of palettization: from the values of one tensor to its look-up tables and packed indices.

Half-precision values are only 65,536, so a tensor is read twice and never sorted: once to count each value, once to
replace each value by its index from a table of 65,536 entries. Single-precision values are counted in cells of 2⁻¹²
relative width; their sums are exact, boundaries between clusters stand between cells, and in the end every value gets
its nearest entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sdbuild.coreml import kmeans
from sdbuild.coreml.kmeans import Histogram
from sdbuild.coreml.packing import pack, packed_size
from sdbuild.errors import SdbuildError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 16
"""Elements handled at a time, so that what stands between reading and writing stays in the processor's cache."""

_COUNTED_PIECE = 1 << 18

_NEGATIVE_ZERO = 0x8000

_CELL_SHIFT = 11
"""Low bits of a float32 that do not choose its cell."""

_SETTLING_STEPS = 16

_NOT_FINITE = "a value is not a finite number"


class PaletteError(SdbuildError):
    """Values that cannot be palettized."""


@dataclass(frozen=True)
class Palette:
    """One tensor's palettized form.

    Attributes:
        tables: one row a group of channels, 2**bits entries of the tensor's own type, ascending; unused entries are
            zero.
        indices: packed, in the tensor's row-major order.
        squared_error: the sum over all elements of the squared difference to the values that they stand for.
        energy: the sum of the squares of all elements.
    """

    tables: NDArray[Any]
    indices: NDArray[np.uint8]
    squared_error: float
    energy: float

    @property
    def stored_bytes(self) -> int:
        """Bytes of tables and indices."""
        return self.tables.nbytes + self.indices.nbytes


@dataclass(frozen=True)
class Counted:
    """The histogram of one group of channels, and for half precision the bit pattern of each of its values."""

    histogram: Histogram
    patterns: NDArray[np.intp] | None


def count(tensor: NDArray[Any], groups: int, axis: int) -> list[Counted]:
    """Count a tensor's values, group by group.

    Args:
        tensor: float16 or float32, contiguous.
        groups: how many groups of neighbouring channels get a table of their own; it divides the axis.
        axis: the axis that is divided into groups.

    Raises:
        PaletteError: a value is not finite.
    """
    count_values = _count_half if tensor.dtype == np.float16 else _count_single
    return [count_values(part) for part in _parts(tensor, groups, axis)]


def cluster(tensors: Sequence[Sequence[Counted]], bits: int) -> list[list[NDArray[np.int64]]]:
    """Cluster tensors together, so that they share the fixed cost of each step.

    Returns:
        For each tensor and group the boundaries of at most 2**bits clusters, as `kmeans.cluster` returns them.
    """
    boundaries = iter(kmeans.cluster([group.histogram for groups in tensors for group in groups], 1 << bits))
    return [[next(boundaries) for _ in groups] for groups in tensors]


def encode(
    tensor: NDArray[Any], axis: int, groups: Sequence[Counted], boundaries: Sequence[NDArray[np.int64]], bits: int
) -> Palette:
    """Make tables of clusters, and replace the tensor's values by indices of the nearest entries.

    Args:
        tensor: what `count` counted.
        axis: the axis that is divided into groups.
        groups: what `count` returned.
        boundaries: the groups' clusters.
        bits: width of an index.
    """
    entries = [_settle(group.histogram, own, tensor.dtype) for group, own in zip(groups, boundaries, strict=True)]
    tables = np.zeros((len(groups), 1 << bits), tensor.dtype)
    for row, own in zip(tables, entries, strict=True):
        row[: len(own)] = own
    pairs = list(zip(groups, entries, strict=True))
    return Palette(
        tables=tables,
        indices=_indices(tensor, axis, [_Lookup(group, own) for group, own in pairs], bits),
        squared_error=sum(kmeans.squared_error(group.histogram, own.astype(np.float64)) for group, own in pairs),
        energy=sum(float(np.cumsum(group.histogram.counts * group.histogram.values**2)[-1]) for group in groups),
    )


def _count_half(values: NDArray[Any]) -> Counted:
    patterns = values.view(np.uint16)
    counts = np.zeros(1 << 16, np.int64)
    for start in range(0, len(patterns), _COUNTED_PIECE):
        counts += np.bincount(patterns[start : start + _COUNTED_PIECE], minlength=1 << 16)
    ascending, numbers = _half_numbers()
    if int(counts[ascending].sum()) != len(values):
        raise PaletteError(_NOT_FINITE)
    counts[0] += counts[_NEGATIVE_ZERO]  # one value; the lookup treats its two patterns alike
    counts[_NEGATIVE_ZERO] = 0
    present = np.flatnonzero(counts[ascending])
    chosen = ascending[present]
    return Counted(Histogram(numbers[present], counts[chosen].astype(np.float64)), chosen)


def _count_single(values: NDArray[Any]) -> Counted:
    """Cells are numbered so that they ascend with the values: negative numbers run backwards in IEEE 754."""
    cells = 1 << (32 - _CELL_SHIFT)
    counts = np.zeros(cells, np.int64)
    sums = np.zeros(cells)
    for start in range(0, len(values), _COUNTED_PIECE):
        piece = values[start : start + _COUNTED_PIECE]
        if not np.isfinite(piece).all():
            raise PaletteError(_NOT_FINITE)
        patterns = piece.view(np.int32) >> np.int32(_CELL_SHIFT)
        ordered = np.where(patterns < 0, -1 - (patterns & (cells // 2 - 1)), patterns) + cells // 2
        touched, inverse = np.unique(ordered, return_inverse=True)
        counts[touched] += np.bincount(inverse)
        sums[touched] += np.bincount(inverse, weights=piece)
    present = np.flatnonzero(counts)
    return Counted(Histogram(sums[present] / counts[present], counts[present].astype(np.float64)), None)


@cache
def _half_numbers() -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The bit patterns of all finite half-precision numbers in ascending order, and their values."""
    infinity = 0x7C00
    ascending = np.concatenate([np.arange(0x8000 + infinity - 1, 0x7FFF, -1), np.arange(infinity)])
    return ascending, ascending.astype(np.uint16).view(np.float16).astype(np.float64)


class _Lookup:
    """Replaces values by the index of the nearest table entry."""

    def __init__(self, counted: Counted, entries: NDArray[Any]) -> None:
        wide = entries.astype(np.float64)
        self._table: NDArray[np.uint8] | None = None
        if counted.patterns is None:
            self._middles = (wide[:-1] + wide[1:]) / 2
            return
        self._table = np.zeros(1 << 16, np.uint8)
        self._table[counted.patterns] = kmeans.nearest(counted.histogram.values, wide)
        self._table[_NEGATIVE_ZERO] = self._table[0]

    def __call__(self, values: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Write the indices of `values` to `out`, both flat."""
        if self._table is None:
            out[:] = np.searchsorted(self._middles, values, side="left")
        else:
            np.take(self._table, values.view(np.uint16), out=out, mode="clip")  # every pattern is inside the table


def _settle(histogram: Histogram, boundaries: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Table entries in the tensor's own type.

    Rounding an optimal centroid to the nearest representable number is the best choice for its cluster; then each value
    may move to a nearer entry, and the entries follow, until nothing changes. No step makes the error larger.
    """
    entries = kmeans.means(histogram, boundaries).astype(dtype)
    error = kmeans.squared_error(histogram, entries.astype(np.float64))
    for _ in range(_SETTLING_STEPS):
        wide = entries.astype(np.float64)
        moved = np.searchsorted(histogram.values, (wide[:-1] + wide[1:]) / 2, side="right")
        boundaries = np.concatenate([[0], moved, [len(histogram.values)]])
        if np.any(np.diff(boundaries) == 0):
            break
        candidate = kmeans.means(histogram, boundaries).astype(dtype)
        improved = kmeans.squared_error(histogram, candidate.astype(np.float64))
        if improved >= error:
            break
        entries, error = candidate, improved
    return entries


def _parts(tensor: NDArray[Any], groups: int, axis: int) -> Iterator[NDArray[Any]]:
    """The elements of each group of channels, flat; views where groups are on the first axis."""
    if groups == 1:
        yield tensor.reshape(-1)
        return
    for part in np.split(tensor, groups, axis=axis):
        yield part.reshape(-1)


def _indices(tensor: NDArray[Any], axis: int, lookups: Sequence[_Lookup], bits: int) -> NDArray[np.uint8]:
    """Packed indices of the nearest entries, one lookup a group of channels."""
    packed = np.empty(packed_size(tensor.size, bits), np.uint8)
    if len(lookups) == 1:
        flat = tensor.reshape(-1)
        piece = np.empty(_PIECE, np.uint8)
        for start in range(0, flat.size, _PIECE):
            stop = min(start + _PIECE, flat.size)
            found = piece[: stop - start]
            lookups[0](flat[start:stop], found)
            pack(found, bits, packed[start * bits // 8 : packed_size(stop, bits)])
        return packed
    unpacked = np.empty(tensor.shape, np.uint8)
    sources = np.split(tensor, len(lookups), axis=axis)
    targets = np.split(unpacked, len(lookups), axis=axis)
    for lookup, source, target in zip(lookups, sources, targets, strict=True):
        found = np.empty(source.size, np.uint8)
        lookup(source.reshape(-1), found)
        target[...] = found.reshape(source.shape)
    return pack(unpacked, bits, packed)
