"""Quantize a package linearly: each large weight becomes 8-bit integers and a scale for every output channel.

Which constants, and how the result is encoded, follows coremltools 9.0's `linear_quantize_weights` in its symmetric
per-channel mode, except that embedding tables are left alone. A channel's scale is its largest magnitude over 127,
rounded up to the weights' own type *before* the weights are divided by it, so that no element is further than half a
step from what it is decompressed to. Values are read twice from the mapped weight file, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdbuild.coreml.candidates import Candidate, select_channels
from sdbuild.coreml.compression import (
    IMMEDIATE_BELOW,
    CompressionReport,
    Method,
    in_order,
    rewrite,
    set_blob,
    set_floats,
)
from sdbuild.coreml.package import BlobType, Package, WeightFile, WeightFileWriter
from sdbuild.coreml.program import ProgramError, has_ios18_operations, set_tensor_type, weight_file
from sdbuild.coreml.proto import MIL_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 8
LARGEST = 127
"""Integers run from -127 to 127: symmetric, so that zero stays zero."""

_PIECE = 1 << 18
"""Elements handled at a time."""


@dataclass(frozen=True)
class Quantized:
    """One tensor's linearly quantized form.

    Attributes:
        integers: int8, of the tensor's shape.
        scales: one a channel, of the tensor's own type.
        squared_error: the sum over all elements of the squared difference to the values that they stand for.
        energy: the sum of the squares of all elements.
    """

    integers: NDArray[np.int8]
    scales: NDArray[Any]
    squared_error: float
    energy: float

    @property
    def stored_bytes(self) -> int:
        """Bytes of integers and scales."""
        return self.integers.nbytes + self.scales.nbytes


@dataclass(frozen=True)
class _Written:
    """Offsets in the new weight file; a few numbers are kept for the program."""

    integers: int
    scales: int | NDArray[Any]
    zeros: int | None


def quantize_linearly(
    source: Path,
    out: Path,
    *,
    workers: int | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> CompressionReport:
    """Write a copy of a package with 8-bit weights.

    Args:
        source: an `.mlpackage` that holds an ML Program.
        out: the `.mlpackage` to create.
        workers: threads; as many as there are processors by default. The result does not depend on it.
        progress: told how far it is, as a fraction and a message.

    Raises:
        ProgramError: a weight is NaN or infinite.
        PackageError: the package is damaged.
    """
    package = Package.open(source)
    weight_file(package)
    candidates, untouched = select_channels(package, BITS)
    ios18 = has_ios18_operations(package)
    method = Method(_quantized, partial(_write, ios18=ios18), _encode_ios18 if ios18 else _encode_ios16)
    return rewrite(package, out, candidates, untouched, method, workers, progress)


def _quantized(
    pool: Executor, threads: int, weights: WeightFile, candidates: Sequence[Candidate]
) -> Iterator[Quantized]:
    def work(candidate: Candidate) -> Quantized:
        try:
            found = quantized(candidate.values(weights), candidate.stored.axis, candidate.stored.groups)
        except ValueError as error:
            raise ProgramError(
                f"the weight {candidate.name} of {weights.path} cannot be quantized: {error}; check the checkpoint, or "
                "keep this component's precision"
            ) from error
        weights.release(candidate.stored.offset)
        return found

    return in_order(pool, threads, work, candidates)


def quantized(values: NDArray[Any], axis: int, groups: int) -> Quantized:
    """Quantize one tensor.

    Args:
        values: float16 or float32, contiguous.
        axis: the axis of the output channels.
        groups: how many scales: the axis's size, or 1 for one scale in all.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    # Rows of elements that share a scale: with the axis first a row is a channel, with the axis last one element.
    rows = values.reshape(-1, values[(0,) * (axis + 1)].size) if groups > 1 else values.reshape(1, -1)
    pieces = list(_pieces(rows))
    largest = np.zeros(len(rows), np.float32)
    energy = 0.0
    for row, column in pieces:
        piece = rows[row, column].astype(np.float32)
        largest[row] = np.maximum(largest[row], np.abs(piece).max(axis=1))
        energy += float(np.vdot(piece, piece))
    if not np.isfinite(energy):
        raise ValueError("a value is not a finite number")
    by_channel = largest.reshape(-1, groups).max(axis=0)
    scales = (by_channel / np.float32(LARGEST)).astype(values.dtype)
    scales = np.where(
        scales.astype(np.float32) * LARGEST < by_channel, np.nextafter(scales, scales.dtype.type(np.inf)), scales
    )
    scales = np.maximum(scales, np.finfo(values.dtype).smallest_subnormal)
    steps = np.resize(scales.astype(np.float32), len(rows))[:, np.newaxis]
    integers = np.empty(rows.shape, np.int8)
    error = 0.0
    for row, column in pieces:
        piece = rows[row, column].astype(np.float32)
        whole = np.clip(np.rint(piece / steps[row]), -LARGEST, LARGEST)
        integers[row, column] = whole
        difference = (whole * steps[row]).astype(values.dtype).astype(np.float32) - piece
        error += float(np.vdot(difference, difference))
    return Quantized(integers.reshape(values.shape), scales, error, energy)


def _pieces(rows: NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """Runs of rows that fit in the processor's cache; a long row in several pieces."""
    count, width = rows.shape
    tall = max(1, _PIECE // width)
    for top in range(0, count, tall):
        for left in range(0, width, _PIECE):
            yield slice(top, top + tall), slice(left, left + _PIECE)


def _write(candidate: Candidate, form: Quantized, writer: WeightFileWriter, *, ios18: bool) -> _Written:
    integers = writer.add(form.integers, BlobType.INT8, form.integers.nbytes)
    if form.scales.size < IMMEDIATE_BELOW:
        return _Written(integers, form.scales, None)
    kind = BlobType.FLOAT32 if candidate.stored.single else BlobType.FLOAT16
    zeros = None
    if not ios18:
        zeros = writer.add(bytes(form.scales.size), BlobType.INT8, form.scales.size)
    return _Written(integers, writer.add(form.scales, kind, form.scales.nbytes), zeros)


def _encode_ios16(operation: Any, candidate: Candidate, written: _Written) -> None:
    """The operation of iOS 16 and 17: integers, a scale and a zero point for each channel of an axis, as attributes."""
    operation.type = "constexpr_affine_dequantize"
    del operation.attributes["val"]
    groups = candidate.stored.groups
    shape = [groups] if groups > 1 else []
    set_blob(operation.attributes["quantized_data"], MIL_pb2.INT8, candidate.shape, written.integers)
    _set_scales(operation.attributes["scale"], candidate, shape, written.scales)
    zero = operation.attributes["zero_point"]
    if written.zeros is None:
        set_tensor_type(zero.type, MIL_pb2.INT8, shape)
        zero.immediateValue.tensor.bytes.values = bytes(groups)
    else:
        set_blob(zero, MIL_pb2.INT8, shape, written.zeros)
    axis = operation.attributes["axis"]
    set_tensor_type(axis.type, MIL_pb2.INT32, [])
    axis.immediateValue.tensor.ints.values.append(candidate.stored.axis)


def _encode_ios18(operation: Any, candidate: Candidate, written: _Written) -> None:
    """The operation of iOS 18: integers, and scales of as many dimensions."""
    operation.type = "constexpr_blockwise_shift_scale"
    del operation.attributes["val"]
    shape = [1] * len(candidate.shape)
    shape[candidate.stored.axis] = candidate.stored.groups
    set_blob(operation.inputs["data"].arguments.add().value, MIL_pb2.INT8, candidate.shape, written.integers)
    _set_scales(operation.inputs["scale"].arguments.add().value, candidate, shape, written.scales)


def _set_scales(value: Any, candidate: Candidate, shape: Sequence[int], scales: int | NDArray[Any]) -> None:
    data_type = MIL_pb2.FLOAT32 if candidate.stored.single else MIL_pb2.FLOAT16
    if isinstance(scales, int):
        set_blob(value, data_type, shape, scales)
    else:
        set_floats(value, data_type, shape, scales)
