"""Read and write `.mlpackage` directories: the specification, the weight file and a canonical manifest.

A weight file (`weight.bin`) is a 64-byte header followed by blobs. Each blob is a 64-byte record (sentinel 0xDEADBEEF,
element type, size and absolute position of the data) and its data; records and data start on multiples of 64 bytes. The
layout is the one that coremltools 9.0's writer (`libmilstoragepython`) produces, byte for byte.

The library's own writer makes every package different: random identifiers in `Manifest.json`, protobuf maps in hash
order. Packages written here are a function of their content alone.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from sdbuild.errors import SdbuildError

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from numpy.typing import DTypeLike, NDArray

    from sdbuild.coreml.write_behind import WriteBehind

ALIGNMENT = 64
WEIGHTS_REFERENCE = "@model_path/weights/weight.bin"
"""How a program's blob values name the weight file of their own package."""

_DATA = Path("Data") / "com.apple.CoreML"
_SENTINEL = 0xDEADBEEF
_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_VERSION = 2
_COPY_STEP = 64 << 20


class PackageError(SdbuildError):
    """A package on disk is not what its format says."""


class BlobType(IntEnum):
    """Element types of blobs in a weight file."""

    FLOAT16 = 1
    FLOAT32 = 2
    UINT8 = 3
    INT8 = 4
    BFLOAT16 = 5
    INT16 = 6
    UINT16 = 7
    INT4 = 8
    UINT1 = 9
    UINT2 = 10
    UINT4 = 11
    UINT3 = 12
    UINT6 = 13
    INT32 = 14
    UINT32 = 15


@dataclass(frozen=True)
class Blob:
    """One blob of a weight file.

    Attributes:
        offset: position of the blob's record; the value that a program's `blobFileValue.offset` holds.
        type: the element type.
        size: bytes of data.
        data_offset: position of the data.
        padding_bits: unused high bits of the last byte of a sub-byte type.
    """

    offset: int
    type: BlobType
    size: int
    data_offset: int
    padding_bits: int


class WeightFile:
    """A weight file mapped read-only: arrays are views, and their pages can be given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER.size:
                raise PackageError(f"{path}: a weight file of {size} bytes has no header; convert the model again")
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.count, version = _HEADER.unpack_from(self._map)
        if version != _VERSION:
            raise PackageError(f"{path}: weight file version {version}, expected {_VERSION}")

    def blob(self, offset: int) -> Blob:
        """The blob whose record stands at `offset`."""
        if offset < 0 or offset % ALIGNMENT or offset + _RECORD.size > len(self._map):
            raise PackageError(f"{self.path}: no blob can start at {offset}")
        sentinel, kind, size, data_offset, padding = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise PackageError(f"{self.path}: no blob starts at {offset}")
        if data_offset + size > len(self._map):
            raise PackageError(f"{self.path}: the blob at {offset} runs past the end of the file")
        return Blob(offset, BlobType(kind), size, data_offset, padding)

    def raw(self, offset: int) -> NDArray[np.uint8]:
        """The data of the blob at `offset`, as bytes, without a copy."""
        blob = self.blob(offset)
        return np.frombuffer(self._map, np.uint8, blob.size, blob.data_offset)

    def array(self, offset: int, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """The data of the blob at `offset` as an array, without a copy."""
        data = self.raw(offset).view(dtype)
        if data.size != int(np.prod(shape, dtype=np.int64)):
            raise PackageError(f"{self.path}: the blob at {offset} holds {data.size} elements, not the shape {shape}")
        return data.reshape(shape)

    def release(self, offset: int) -> None:
        """Give the pages of the blob at `offset` back to the operating system; a later read maps them again."""
        blob = self.blob(offset)
        start = blob.data_offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, start, blob.data_offset + blob.size - start)

    def close(self) -> None:
        """Unmap the file; arrays still in use keep the map alive."""
        try:
            self._map.close()
        except BufferError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WeightFileWriter:
    """Writes a weight file from front to back; `close` completes the header."""

    def __init__(self, path: Path, file: BinaryIO | WriteBehind | None = None) -> None:
        """Begin a weight file.

        Args:
            path: where it is, for messages.
            file: what to write into, if not the plain file at `path`.
        """
        self.path = path
        self._file: BinaryIO | WriteBehind = path.open("wb") if file is None else file
        self._file.write(b"\0" * _HEADER.size)
        self._end = _HEADER.size
        self._count = 0

    def add(self, data: Buffer | Iterable[Buffer], blob_type: BlobType, size: int, *, padding_bits: int = 0) -> int:
        """Append a blob.

        Args:
            data: the bytes, in one buffer or piece by piece.
            blob_type: the element type.
            size: how many bytes `data` holds in all.
            padding_bits: unused high bits of the last byte of a sub-byte type.

        Returns:
            The offset by which a program refers to the blob.

        Raises:
            PackageError: `data` holds more or fewer bytes than `size`.
        """
        offset = self._begin(blob_type, size, padding_bits)
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview | np.ndarray) else data
        written = 0
        for piece in pieces:
            written += self._file.write(memoryview(piece).cast("B"))  # type: ignore[arg-type]
        if written != size:
            raise PackageError(f"{self.path}: a blob of {size} bytes was given {written} bytes")
        self._end += size
        return offset

    def copy(self, source: WeightFile, offset: int) -> int:
        """Append the blob at `offset` of another weight file, copied by the kernel where it can."""
        blob = source.blob(offset)
        new = self._begin(blob.type, blob.size, blob.padding_bits)
        self._file.flush()
        with source.path.open("rb") as origin:
            _copy_range(origin.fileno(), blob.data_offset, self._file.fileno(), self._end, blob.size)
        self._end += blob.size
        self._file.seek(self._end)
        return new

    def close(self) -> None:
        """Write the header and close the file."""
        try:
            self._file.seek(0)
            self._file.write(_HEADER.pack(self._count, _VERSION))
        finally:
            self._file.close()

    def _begin(self, blob_type: BlobType, size: int, padding_bits: int) -> int:
        offset = _aligned(self._end)
        self._file.write(b"\0" * (offset - self._end))
        self._file.write(_RECORD.pack(_SENTINEL, blob_type, size, offset + _RECORD.size, padding_bits))
        self._end = offset + _RECORD.size
        self._count += 1
        return offset

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Package:
    """An `.mlpackage` on disk; the specification and the weights are read when first asked for."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Package:
        """Open a package after checking that its manifest and specification are there.

        Raises:
            PackageError: `path` is no package.
        """
        for part in (path / "Manifest.json", path / _DATA / "model.mlmodel"):
            if not part.is_file():
                raise PackageError(f"{path} is not a Core ML package: {part.relative_to(path)} is missing")
        return cls(path)

    @cached_property
    def spec(self) -> Any:
        """The `Model` message (coremltools.proto.Model_pb2)."""
        from google.protobuf.message import DecodeError

        from sdbuild.coreml.proto import Model_pb2

        model = Model_pb2.Model()
        try:
            model.ParseFromString((self.path / _DATA / "model.mlmodel").read_bytes())
        except DecodeError as error:
            raise PackageError(f"{self.path}: model.mlmodel is damaged ({error}); build the package again") from error
        return model

    @cached_property
    def weights(self) -> WeightFile | None:
        """The mapped weight file, or None where every constant stands in the specification."""
        path = self.path / _DATA / "weights" / "weight.bin"
        return WeightFile(path) if path.is_file() else None


def write_package(out: Path, spec: Any, weights: Path | None) -> None:
    """Write a package whose bytes depend on nothing but its content.

    Args:
        out: the `.mlpackage` directory to create; it must not exist.
        spec: a `Model` message.
        weights: a finished weight file in the same file system, which is moved into the package; None without one.
    """
    data = out / _DATA
    data.mkdir(parents=True)
    (data / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
    items = [("model.mlmodel", "CoreML Model Specification")]
    if weights is not None:
        (data / "weights").mkdir()
        weights.rename(data / "weights" / "weight.bin")
        items.append(("weights", "CoreML Model Weights"))
    entries = {
        _item_identifier(name): {
            "author": "com.apple.CoreML",
            "description": description,
            "name": name,
            "path": f"com.apple.CoreML/{name}",
        }
        for name, description in items
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _item_identifier("model.mlmodel"),
    }
    (out / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def _item_identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"com.apple.CoreML/{name}")).upper()


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _copy_range(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copy bytes between files without bringing them into this process where the system offers that."""
    done = 0
    while done < size:
        step = min(_COPY_STEP, size - done)
        copied = 0
        if hasattr(os, "copy_file_range"):
            try:
                copied = os.copy_file_range(source, target, step, source_offset + done, target_offset + done)
            except OSError:  # between file systems, or one without support
                copied = 0
        if not copied:
            piece = os.pread(source, min(step, 4 << 20), source_offset + done)
            copied = os.pwrite(target, piece, target_offset + done)
        done += copied
