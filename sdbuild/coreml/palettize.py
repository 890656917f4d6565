"""Palettize a package: replace each large weight by a look-up table and packed indices, from file to file.

Which constants are palettized, and how the result is encoded, follows coremltools 9.0's `palettize_weights` with its
default configuration, except that embedding tables are left alone. Names stay as they are. Values are read from the
mapped weight file a few tensors at a time, and everything that is not palettized is copied as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sdbuild.coreml.candidates import Candidate, Stored, select
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
from sdbuild.coreml.packing import packed_size
from sdbuild.coreml.palette import Counted, Palette, PaletteError, cluster, count, encode
from sdbuild.coreml.program import ProgramError, element_count, has_ios18_operations, set_tensor_type, weight_file
from sdbuild.coreml.proto import MIL_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

Granularity = Literal["per_tensor", "per_grouped_channel"]

_WINDOW_HISTOGRAMS = 64
_WINDOW_VALUES = 2 << 20
"""How much is clustered at a time: so many histograms, of so many different values together."""


@dataclass(frozen=True)
class _Written:
    """Where the palettized form stands: offsets in the new weight file; very small tables are kept for the program."""

    indices: int
    tables: int | NDArray[Any]


def palettize(
    source: Path,
    out: Path,
    *,
    bits: int,
    exceptions: Mapping[str, int | None] | None = None,
    granularity: Granularity = "per_tensor",
    group_size: int = 32,
    workers: int | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> CompressionReport:
    """Write a palettized copy of a package.

    Args:
        source: an `.mlpackage` that holds an ML Program.
        out: the `.mlpackage` to create.
        bits: width of an index: 1, 2, 4, 6 or 8, and 3 from iOS 18 on.
        exceptions: other widths for some constants, by operation name; None leaves a constant alone.
        granularity: one look-up table a tensor, or one for every `group_size` output channels (from iOS 18 on).
        group_size: output channels that share a table. Constants that it does not divide are left alone and reported.
        workers: threads that count and encode, beside the one that clusters; as many as there are processors by
            default. The result does not depend on it.
        progress: told how far it is, as a fraction and a message.

    Raises:
        ProgramError: the package's opset cannot hold what is asked for, a name is unknown, a weight is NaN or infinite.
        PackageError: the package is damaged.
    """
    package = Package.open(source)
    weight_file(package)
    grouped = group_size if granularity == "per_grouped_channel" else None
    candidates, untouched = select(package, bits, exceptions or {}, grouped)
    ios18 = has_ios18_operations(package)
    method = Method(_palettized, partial(_write, ios18=ios18), _encode_ios18 if ios18 else _encode_ios16)
    return rewrite(package, out, candidates, untouched, method, workers, progress)


@dataclass(frozen=True)
class _Clustered:
    """A constant on the way from its histograms to its indices."""

    candidate: Candidate
    groups: Sequence[Counted]
    boundaries: Sequence[NDArray[np.int64]]


def _palettized(
    pool: Executor, threads: int, weights: WeightFile, candidates: Sequence[Candidate]
) -> Iterator[Palette]:
    """Palettes in order. The pool counts and encodes, tensor by tensor; one more thread clusters what was counted.

    Clustering is many array operations most of which hold the interpreter, so that two threads of it are slower than
    one, and large windows are faster than small ones.
    """

    def counted(candidate: Candidate) -> list[Counted]:
        try:
            found = count(candidate.values(weights), candidate.stored.groups, candidate.stored.axis)
        except PaletteError as error:
            raise ProgramError(
                f"the weight {candidate.name} of {weights.path} cannot be palettized: {error}; "
                "check the checkpoint, or leave this weight alone"
            ) from error
        weights.release(candidate.stored.offset)
        return found

    def encoded(job: _Clustered) -> Palette:
        stored = job.candidate.stored
        found = encode(job.candidate.values(weights), stored.axis, job.groups, job.boundaries, stored.bits)
        weights.release(stored.offset)
        return found

    histograms = zip(candidates, in_order(pool, threads, counted, candidates), strict=True)
    with ThreadPoolExecutor(1) as clustering:
        yield from in_order(pool, threads, encoded, _clustered(clustering, histograms))


def _clustered(clustering: Executor, histograms: Iterator[tuple[Candidate, list[Counted]]]) -> Iterator[_Clustered]:
    """Cluster window by window, the next one while this one is encoded."""

    def cluster_next() -> list[_Clustered]:
        window = list(_window(histograms))
        found: dict[Candidate, list[NDArray[np.int64]]] = {}
        for bits in {candidate.stored.bits for candidate, _ in window}:
            alike = {candidate: groups for candidate, groups in window if candidate.stored.bits == bits}
            found.update(zip(alike, cluster(list(alike.values()), bits), strict=True))
        return [_Clustered(candidate, groups, found[candidate]) for candidate, groups in window]

    following = clustering.submit(cluster_next)
    while window := following.result():
        following = clustering.submit(cluster_next)
        yield from window


def _window(histograms: Iterator[tuple[Candidate, list[Counted]]]) -> Iterator[tuple[Candidate, list[Counted]]]:
    """As many tensors as are clustered together."""
    together = values = 0
    for candidate, groups in histograms:
        yield candidate, groups
        together += len(groups)
        values += sum(len(group.histogram.values) for group in groups)
        if together >= _WINDOW_HISTOGRAMS or values >= _WINDOW_VALUES:
            return


def _write(candidate: Candidate, palette: Palette, writer: WeightFileWriter, *, ios18: bool) -> _Written:
    """Append indices and tables; where the indices are elements of their own type, the type says so."""
    bits = candidate.stored.bits
    if ios18:
        padding = palette.indices.size * 8 - element_count(candidate.shape) * bits
        indices = writer.add(palette.indices, BlobType[f"UINT{bits}"], palette.indices.nbytes, padding_bits=padding)
    else:
        indices = writer.add(palette.indices, BlobType.UINT8, palette.indices.nbytes)
    if palette.tables.size < IMMEDIATE_BELOW:
        return _Written(indices, palette.tables)
    kind = BlobType.FLOAT32 if palette.tables.dtype == np.float32 else BlobType.FLOAT16
    return _Written(indices, writer.add(palette.tables, kind, palette.tables.nbytes))


def _encode_ios16(operation: Any, candidate: Candidate, written: _Written) -> None:
    """The operation of iOS 16 and 17: one table, indices packed into bytes, all in attributes."""
    stored = candidate.stored
    operation.type = "constexpr_lut_to_dense"
    del operation.attributes["val"]
    set_blob(
        operation.attributes["indices"],
        MIL_pb2.UINT8,
        (packed_size(element_count(candidate.shape), stored.bits),),
        written.indices,
    )
    _set_tables(operation.attributes["lut"], stored, (1 << stored.bits,), written.tables)
    shape = operation.attributes["shape"]
    set_tensor_type(shape.type, MIL_pb2.UINT32, (len(candidate.shape),))
    shape.immediateValue.tensor.bytes.values = np.asarray(candidate.shape, "<u4").tobytes()


def _encode_ios18(operation: Any, candidate: Candidate, written: _Written) -> None:
    """The operation of iOS 18: indices of a sub-byte type in the weight's shape, tables of two more dimensions."""
    stored = candidate.stored
    operation.type = "constexpr_lut_to_dense"
    del operation.attributes["val"]
    indices = operation.inputs["indices"].arguments.add().value
    set_blob(indices, MIL_pb2.DataType.Value(f"UINT{stored.bits}"), candidate.shape, written.indices)
    tables_shape = [1] * len(candidate.shape) + [1 << stored.bits, 1]
    tables_shape[stored.axis] = stored.groups
    _set_tables(operation.inputs["lut"].arguments.add().value, stored, tables_shape, written.tables)


def _set_tables(value: Any, stored: Stored, shape: Sequence[int], tables: int | NDArray[Any]) -> None:
    data_type = MIL_pb2.FLOAT32 if stored.single else MIL_pb2.FLOAT16
    if isinstance(tables, int):
        set_blob(value, data_type, shape, tables)
        return
    set_floats(value, data_type, shape, tables)
