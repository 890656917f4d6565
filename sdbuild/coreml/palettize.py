"""Palettize a package: replace each large weight by a look-up table and packed indices, from file to file.

Which constants are palettized, and how the result is encoded, follows coremltools 9.0's `palettize_weights` with its
default configuration, except that embedding tables are left alone. Names stay as they are. Values are read from the
mapped weight file a few tensors at a time, and everything that is not palettized is copied as bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sdbuild.coreml.candidates import Candidate, Stored, Untouched, select
from sdbuild.coreml.package import WEIGHTS_REFERENCE, BlobType, Package, WeightFile, WeightFileWriter, write_package
from sdbuild.coreml.packing import packed_size
from sdbuild.coreml.palette import Palette, PaletteError, palettes
from sdbuild.coreml.program import (
    BlobCopier,
    ProgramError,
    element_count,
    has_ios18_operations,
    main_block,
    operations,
    set_tensor_type,
    weight_file,
)
from sdbuild.coreml.proto import MIL_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

Granularity = Literal["per_tensor", "per_grouped_channel"]

_IMMEDIATE_BELOW = 10
"""coremltools writes tensors with fewer elements into the program, not into the weight file."""

_BATCH_ELEMENTS = 32 << 20
_BATCH_TENSORS = 16
"""How much one worker takes at a time: small tensors together, large ones alone."""


@dataclass(frozen=True)
class PalettizedTensor:
    """What palettization did to one constant.

    Attributes:
        name: the constant's operation.
        groups: how many look-up tables it has.
        squared_error: sum of squared differences between the weights and what they are decompressed to.
        signal_to_noise_db: 10·log₁₀ of the weights' energy over `squared_error`; None without any error.
        bytes_before: stored bytes of the plain constant.
        bytes_after: stored bytes of tables and indices.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    groups: int
    squared_error: float
    signal_to_noise_db: float | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class PalettizationReport:
    """What palettization did to a package; sizes are those of the weight files."""

    tensors: tuple[PalettizedTensor, ...]
    untouched: tuple[Untouched, ...]
    bytes_before: int
    bytes_after: int


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
) -> PalettizationReport:
    """Write a palettized copy of a package.

    Args:
        source: an `.mlpackage` that holds an ML Program.
        out: the `.mlpackage` to create.
        bits: width of an index: 1, 2, 4, 6 or 8, and 3 from iOS 18 on.
        exceptions: other widths for some constants, by operation name; None leaves a constant alone.
        granularity: one look-up table a tensor, or one for every `group_size` output channels (from iOS 18 on).
        group_size: output channels that share a table. Constants that it does not divide are left alone and reported.
        workers: threads; as many as there are processors by default. The result does not depend on it.
        progress: told how far it is, as a fraction and a message.

    Raises:
        ProgramError: the package's opset cannot hold what is asked for, a name is unknown, a weight is NaN or infinite.
        PackageError: the package is damaged.
    """
    package = Package.open(source)
    weights = weight_file(package)
    grouped = group_size if granularity == "per_grouped_channel" else None
    candidates, untouched = select(package, bits, exceptions or {}, grouped)
    temporary = out.with_name(out.name + ".weights")
    try:
        with WeightFileWriter(temporary) as writer:
            tensors = _rewrite(package, weights, candidates, writer, workers or os.cpu_count() or 1, progress)
        before, after = weights.path.stat().st_size, temporary.stat().st_size
        write_package(out, package.spec, temporary)
    finally:
        temporary.unlink(missing_ok=True)
        weights.close()
    return PalettizationReport(tuple(tensors), tuple(untouched), before, after)


def _rewrite(
    package: Package,
    weights: WeightFile,
    candidates: Sequence[Candidate],
    writer: WeightFileWriter,
    threads: int,
    progress: Callable[[float, str], None],
) -> list[PalettizedTensor]:
    """Write a new weight file, operation by operation, and make the program refer to it."""
    by_position = {candidate.position: candidate for candidate in candidates}
    unique = list({candidate.stored: candidate for candidate in candidates}.values())
    total = sum(element_count(candidate.shape) for candidate in unique)
    ios18 = has_ios18_operations(package)
    encode = _encode_ios18 if ios18 else _encode_ios16
    copy_blobs = BlobCopier(weights, writer)
    encoded: dict[Stored, tuple[PalettizedTensor, _Written]] = {}
    tensors = []
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        results = _palettized(pool, threads, weights, unique)
        for position, operation in enumerate(list(operations(main_block(package)))):
            candidate = by_position.get(position)
            if candidate is None:
                copy_blobs(operation)
                continue
            if candidate.stored not in encoded:
                palette = next(results)
                written = _write(candidate, palette, writer, ios18=ios18)
                encoded[candidate.stored] = _report(candidate, palette), written
                done += element_count(candidate.shape)
                progress(done / total, candidate.name)
            tensor, written = encoded[candidate.stored]
            tensors.append(replace(tensor, name=candidate.name))
            encode(operation, candidate, written)
    return tensors


def _palettized(
    pool: ThreadPoolExecutor, threads: int, weights: WeightFile, candidates: Sequence[Candidate]
) -> Iterator[Palette]:
    """Palettes in order; never more batches in memory than there are workers, and one that waits to be written."""

    def work(batch: Sequence[Candidate]) -> list[Palette]:
        try:
            found = palettes(
                [candidate.values(weights) for candidate in batch],
                [candidate.stored.groups for candidate in batch],
                [candidate.stored.axis for candidate in batch],
                batch[0].stored.bits,
            )
        except PaletteError as error:
            culprit = batch[error.position]
            raise ProgramError(
                f"the weight {culprit.name} of {weights.path} cannot be palettized: {error}; "
                "check the checkpoint, or leave this weight alone"
            ) from error
        for candidate in batch:
            weights.release(candidate.stored.offset)
        return found

    waiting: deque[Future[list[Palette]]] = deque()
    for batch in _batches(candidates):
        waiting.append(pool.submit(work, batch))
        if len(waiting) > threads:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _batches(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Neighbours of the same width, as many as fit."""
    batch: list[Candidate] = []
    elements = 0
    for candidate in candidates:
        size = element_count(candidate.shape)
        full = len(batch) == _BATCH_TENSORS or elements + size > _BATCH_ELEMENTS
        if batch and (full or batch[0].stored.bits != candidate.stored.bits):
            yield batch
            batch, elements = [], 0
        batch.append(candidate)
        elements += size
    if batch:
        yield batch


def _report(candidate: Candidate, palette: Palette) -> PalettizedTensor:
    error, energy = palette.squared_error, palette.energy
    return PalettizedTensor(
        name=candidate.name,
        shape=candidate.shape,
        bits=candidate.stored.bits,
        groups=candidate.stored.groups,
        squared_error=error,
        signal_to_noise_db=10 * log10(energy / error) if error and energy else None,
        bytes_before=element_count(candidate.shape) * palette.tables.itemsize,
        bytes_after=palette.tables.nbytes + palette.indices.nbytes,
    )


def _write(candidate: Candidate, palette: Palette, writer: WeightFileWriter, *, ios18: bool) -> _Written:
    """Append indices and tables; where the indices are elements of their own type, the type says so."""
    bits = candidate.stored.bits
    if ios18:
        padding = palette.indices.size * 8 - element_count(candidate.shape) * bits
        indices = writer.add(palette.indices, BlobType[f"UINT{bits}"], palette.indices.nbytes, padding_bits=padding)
    else:
        indices = writer.add(palette.indices, BlobType.UINT8, palette.indices.nbytes)
    if palette.tables.size < _IMMEDIATE_BELOW:
        return _Written(indices, palette.tables)
    kind = BlobType.FLOAT32 if palette.tables.dtype == np.float32 else BlobType.FLOAT16
    return _Written(indices, writer.add(palette.tables, kind, palette.tables.nbytes))


def _encode_ios16(operation: Any, candidate: Candidate, written: _Written) -> None:
    """The operation of iOS 16 and 17: one table, indices packed into bytes, all in attributes."""
    stored = candidate.stored
    operation.type = "constexpr_lut_to_dense"
    del operation.attributes["val"]
    _set_blob(
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
    _set_blob(indices, MIL_pb2.DataType.Value(f"UINT{stored.bits}"), candidate.shape, written.indices)
    tables_shape = [1] * len(candidate.shape) + [1 << stored.bits, 1]
    tables_shape[stored.axis] = stored.groups
    _set_tables(operation.inputs["lut"].arguments.add().value, stored, tables_shape, written.tables)


def _set_tables(value: Any, stored: Stored, shape: Sequence[int], tables: int | NDArray[Any]) -> None:
    data_type = MIL_pb2.FLOAT32 if stored.single else MIL_pb2.FLOAT16
    if isinstance(tables, int):
        _set_blob(value, data_type, shape, tables)
        return
    set_tensor_type(value.type, data_type, shape)
    if stored.single:
        value.immediateValue.tensor.floats.values.extend(tables.reshape(-1).tolist())
    else:
        value.immediateValue.tensor.bytes.values = tables.astype("<f2").tobytes()


def _set_blob(value: Any, data_type: int, shape: Sequence[int], offset: int) -> None:
    set_tensor_type(value.type, data_type, shape)
    value.blobFileValue.fileName = WEIGHTS_REFERENCE
    value.blobFileValue.offset = offset
