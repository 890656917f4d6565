"""What every way to make a package's weights smaller has in common: the pass over the program, and its report."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sdbuild.coreml.candidates import Candidate, Stored, Untouched
from sdbuild.coreml.package import WEIGHTS_REFERENCE, Package, WeightFile, WeightFileWriter, write_package
from sdbuild.coreml.program import BlobCopier, element_count, main_block, operations, set_tensor_type, weight_file

IMMEDIATE_BELOW = 10
"""coremltools writes tensors with fewer elements into the program, not into the weight file."""

Progress = Callable[[float, str], None]
Job = TypeVar("Job")
Made = TypeVar("Made")


class Compressed(Protocol):
    """One tensor's compressed form."""

    @property
    def squared_error(self) -> float:
        """The sum of squared differences to the plain values."""

    @property
    def energy(self) -> float:
        """The sum of the plain values' squares."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its parts."""


Form = TypeVar("Form", bound=Compressed)
Written = TypeVar("Written")


@dataclass(frozen=True)
class CompressedTensor:
    """What compression did to one constant.

    Attributes:
        name: the constant's operation.
        groups: how many look-up tables or scales it has.
        squared_error: sum of squared differences between the weights and what they are decompressed to.
        signal_to_noise_db: 10·log₁₀ of the weights' energy over `squared_error`; None without any error.
        bytes_before: stored bytes of the plain constant.
        bytes_after: stored bytes of tables or scales, and indices or integers.
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
class CompressionReport:
    """What compression did to a package; sizes are those of the weight files."""

    tensors: tuple[CompressedTensor, ...]
    untouched: tuple[Untouched, ...]
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Method(Generic[Form, Written]):
    """One way to compress.

    Attributes:
        compress: the compressed forms of some constants, in their order, made by an executor with that many threads.
        write: appends a form's parts to the new weight file and says where they stand.
        encode: makes an operation the compressed constant.
    """

    compress: Callable[[Executor, int, WeightFile, Sequence[Candidate]], Iterator[Form]]
    write: Callable[[Candidate, Form, WeightFileWriter], Written]
    encode: Callable[[Any, Candidate, Written], None]


def rewrite(
    package: Package,
    out: Path,
    candidates: Sequence[Candidate],
    untouched: Sequence[Untouched],
    method: Method[Form, Written],
    workers: int | None,
    progress: Progress,
) -> CompressionReport:
    """Write a copy of `package` with the candidates compressed; everything else is copied as bytes.

    Raises:
        ProgramError: a weight cannot be compressed.
    """
    weights = weight_file(package)
    temporary = out.with_name(out.name + ".weights")
    try:
        with WeightFileWriter(temporary) as writer:
            threads = workers or os.cpu_count() or 1
            tensors = _rewrite(package, weights, candidates, method, writer, threads, progress)
        before, after = weights.path.stat().st_size, temporary.stat().st_size
        write_package(out, package.spec, temporary)
    finally:
        temporary.unlink(missing_ok=True)
        weights.close()
    return CompressionReport(tuple(tensors), tuple(untouched), before, after)


def _rewrite(
    package: Package,
    weights: WeightFile,
    candidates: Sequence[Candidate],
    method: Method[Form, Written],
    writer: WeightFileWriter,
    threads: int,
    progress: Progress,
) -> list[CompressedTensor]:
    """Write a new weight file, operation by operation, and make the program refer to it."""
    by_position = {candidate.position: candidate for candidate in candidates}
    unique = list({candidate.stored: candidate for candidate in candidates}.values())
    total = sum(element_count(candidate.shape) for candidate in unique)
    copy_blobs = BlobCopier(weights, writer)
    encoded: dict[Stored, tuple[CompressedTensor, Written]] = {}
    tensors = []
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        results = method.compress(pool, threads, weights, unique)
        for position, operation in enumerate(list(operations(main_block(package)))):
            candidate = by_position.get(position)
            if candidate is None:
                copy_blobs(operation)
                continue
            if candidate.stored not in encoded:
                form = next(results)
                encoded[candidate.stored] = _described(candidate, form), method.write(candidate, form, writer)
                done += element_count(candidate.shape)
                progress(done / total, candidate.name)
            tensor, written = encoded[candidate.stored]
            tensors.append(replace(tensor, name=candidate.name))
            method.encode(operation, candidate, written)
    return tensors


def in_order(pool: Executor, threads: int, work: Callable[[Job], Made], jobs: Iterable[Job]) -> Iterator[Made]:
    """Results in order; never more jobs in memory than there are threads, and one that waits to be written."""
    waiting: deque[Future[Made]] = deque()
    for job in jobs:
        waiting.append(pool.submit(work, job))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _described(candidate: Candidate, form: Compressed) -> CompressedTensor:
    error, energy = form.squared_error, form.energy
    return CompressedTensor(
        name=candidate.name,
        shape=candidate.shape,
        bits=candidate.stored.bits,
        groups=candidate.stored.groups,
        squared_error=error,
        signal_to_noise_db=10 * log10(energy / error) if error and energy else None,
        bytes_before=element_count(candidate.shape) * (4 if candidate.stored.single else 2),
        bytes_after=form.stored_bytes,
    )


def set_blob(value: Any, data_type: int, shape: Sequence[int], offset: int) -> None:
    """Make a value a tensor in the weight file."""
    set_tensor_type(value.type, data_type, shape)
    value.blobFileValue.fileName = WEIGHTS_REFERENCE
    value.blobFileValue.offset = offset


def set_floats(value: Any, data_type: int, shape: Sequence[int], numbers: Any) -> None:
    """Make a value a small tensor of float16 or float32 in the program itself."""
    set_tensor_type(value.type, data_type, shape)
    if numbers.itemsize == 4:
        value.immediateValue.tensor.floats.values.extend(numbers.reshape(-1).tolist())
    else:
        value.immediateValue.tensor.bytes.values = numbers.astype("<f2").tobytes()
