"""The header of a safetensors file: names, shapes and types of its tensors, and its metadata; no weight is read.

The format is that library's README's, "Format": eight bytes of length, then JSON, then the tensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from sdbuild.documents import open_regular
from sdbuild.errors import SdbuildError

# A limit of the specification; a longer header is a damaged file.
_LONGEST = 100_000_000
# Bits of one number, by the type's name in a header.
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F64", "I64", "U64"), 64),
}


_FLOATS = {"F16": "<e", "BF16": "<f", "F32": "<f", "F64": "<d"}


class HeaderError(SdbuildError):
    """A file's header cannot be read."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor's shape, and its type as the file names it: `F16`, `BF16`, `F32` …."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a file holds.

    Attributes:
        tensors: name → shape and type.
        metadata: the words beside the tensors.
        start: where the tensors' bytes begin in the file.
        offsets: name → first byte and the byte after the last one, from `start` on.
        numbers: name → the numbers in a small tensor, where they were read already.
    """

    tensors: Mapping[str, TensorHeader]
    metadata: Mapping[str, str] = field(default_factory=dict)
    start: int = 0
    offsets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Read a file's header.

    Raises:
        HeaderError: it is no whole safetensors file; the message names it.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST, size - 8):
                raise HeaderError(f"{path}: is not a whole safetensors file; download it again")
            content = dict(json.loads(file.read(length)))
        metadata = content.pop("__metadata__", None) or {}
        tensors = {name: TensorHeader(_whole(entry["shape"]), str(entry["dtype"])) for name, entry in content.items()}
        offsets = {name: _offsets(entry["data_offsets"]) for name, entry in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeaderError(f"{path}: cannot be read: {error!r}; download it again") from error
    for name, tensor in tensors.items():
        start, end = offsets[name]
        if not 0 <= start <= end <= size - 8 - length or min(tensor.shape, default=0) < 0:
            raise HeaderError(f"{path}: tensor {name} does not lie in the file; it is cut short: download it again")
        if tensor.dtype in BITS and 8 * (end - start) != prod(tensor.shape) * BITS[tensor.dtype]:
            raise HeaderError(f"{path}: tensor {name} has another size than its shape says; download it again")
    return Header(tensors, {str(key): str(value) for key, value in metadata.items()}, 8 + length, offsets)


def read_bytes(path: Path, header: Header, name: str) -> bytes:
    """The bytes of one small tensor."""
    start, end = header.offsets[name]
    with path.open("rb") as file:
        file.seek(header.start + start)
        return file.read(end - start)


def read_numbers(path: Path | None, header: Header, name: str) -> tuple[float, ...]:
    """The numbers in one small tensor of a floating type.

    Args:
        path: the file; None where the header has the numbers.
        header: the file's.
        name: the tensor's.

    Raises:
        HeaderError: it is of another type, or there is no file to read it from.
    """
    if name in header.numbers:
        return header.numbers[name]
    if path is None:
        raise HeaderError(f"tensor {name} was not read")
    dtype = header.tensors[name].dtype
    if dtype not in _FLOATS:
        raise HeaderError(f"{path}: tensor {name} has the type {dtype}, and must be one of {', '.join(_FLOATS)}")
    raw = read_bytes(path, header, name)
    if dtype == "BF16":  # the upper half of a float32
        raw = b"".join(b"\0\0" + raw[start : start + 2] for start in range(0, len(raw), 2))
    return tuple(value for (value,) in struct.iter_unpack(_FLOATS[dtype], raw))


def _offsets(stated: Any) -> tuple[int, int]:
    start, end = _whole(stated)
    return start, end


def _whole(stated: Any) -> tuple[int, ...]:
    """Whole numbers, which JSON does not tell from others."""
    numbers = tuple(stated)
    if any(type(number) is not int for number in numbers):
        raise ValueError(f"whole numbers are expected, there is {stated!r}")
    return numbers
