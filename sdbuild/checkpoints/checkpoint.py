"""Checkpoint tensors read one at a time, straight from the file's pages.

A component's folder may hold safetensors or PyTorch pickles, whole or sharded, with or without a variant such as
`fp16`. `Checkpoint.open` finds out which, reads names, shapes and types only, and hands out `StoredTensor`s that touch
the file when they are read. Formats: the safetensors layout (https://github.com/huggingface/safetensors, README,
"Format") and PyTorch's zip serialisation, which `torch.load(mmap=True)` maps.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.float8 import FORMATS, decoder, scaled
from sdbuild.documents import read_json
from sdbuild.models.errors import ModelError

# safetensors' type names → ours. NumPy has no bfloat16: it is read as raw 16-bit words and widened.
_SAFETENSORS_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"} | {
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    **{theirs: ours for ours, theirs in FORMATS.items()},
}
STORAGE_TYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
FLOATING = ("float16", "bfloat16", "float32", "float64")
"""The types that a weight can have."""
# A limit of the safetensors specification; a larger header is a damaged file.
_HEADER_LIMIT = 100_000_000

# The names that diffusers and transformers save under.
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a checkpoint file, possibly under another shape; implements `sdbuild.tensors.Weight`.

    Attributes:
        name: the tensor's name in the checkpoint.
        shape: the shape that `read` returns.
        dtype: the stored element type.
        raw: the elements, in their storage type and shape.
        mapped: whether `raw` is one run of a file's pages, so that they can be given back.
        decode: `raw` → values of `dtype`, where the file holds them in another form; None where `raw` are the values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    raw: NDArray[np.generic] = field(repr=False, compare=False)
    mapped: bool = True
    decode: Callable[[NDArray[Any]], NDArray[Any]] | None = field(default=None, repr=False, compare=False)

    def read(self) -> NDArray[np.generic]:
        """The values with `shape`: a view of the file's pages, or float32 values where the file holds bfloat16."""
        values = self.raw
        if self.decode is not None:
            values = self.decode(values)
        elif self.dtype == "bfloat16":
            # bfloat16 is the upper half of a float32.
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(self.shape)

    def done(self) -> None:
        """Give the pages back: they are clean, so that a later read only faults them in again."""
        if not self.mapped:
            return
        start = self.raw.__array_interface__["data"][0]
        first = start - start % mmap.PAGESIZE
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(start + self.raw.nbytes - first), mmap.MADV_DONTNEED)

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor:
        """The same elements in the same order under another shape."""
        return replace(self, shape=shape)

    def rows(self, count: int) -> StoredTensor:
        """The first `count` entries of the outermost dimension."""
        return self.piece(0, count)

    def piece(self, start: int, end: int) -> StoredTensor:
        """The entries of the outermost dimension from `start` to before `end`."""
        shape = (end - start, *self.shape[1:])
        if self.decode is None:
            return replace(self, raw=self.raw[start:end], shape=shape)
        return self._derived(shape, lambda values: values[start:end])

    def transposed(self) -> StoredTensor:
        """The tensor with its dimensions in reverse order."""
        if self.decode is None:
            return replace(self, raw=self.raw.T, shape=self.shape[::-1], mapped=False)
        return self._derived(self.shape[::-1], lambda values: values.T)

    def _derived(self, shape: tuple[int, ...], change: Callable[[NDArray[Any]], NDArray[Any]]) -> StoredTensor:
        decode, own = self.decode, self.shape
        assert decode is not None
        return replace(self, shape=shape, decode=lambda raw: change(decode(raw).reshape(own)))


@dataclass(frozen=True)
class ConstantWeight:
    """Values that follow from the configuration and not from the checkpoint; implements `sdbuild.tensors.Weight`."""

    name: str
    values: NDArray[np.float32] = field(repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The values' shape."""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """Constants are float32."""
        return "float32"

    def read(self) -> NDArray[np.generic]:
        """The values."""
        return self.values

    def done(self) -> None:
        """Nothing is mapped."""


@dataclass(frozen=True)
class DerivedWeight:
    """A stored tensor of which a small part, or another order, is wanted; implements `sdbuild.tensors.Weight`.

    Attributes:
        source: the stored tensor.
        shape: the shape of what `derive` returns.
        derive: the stored values → the wanted ones.
    """

    source: StoredTensor
    shape: tuple[int, ...]
    derive: Callable[[NDArray[Any]], NDArray[Any]] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The stored tensor's name."""
        return self.source.name

    @property
    def dtype(self) -> str:
        """The stored element type."""
        return self.source.dtype

    def read(self) -> NDArray[np.generic]:
        """The wanted values, in memory of their own."""
        return np.ascontiguousarray(self.derive(self.source.read()).reshape(self.shape))

    def done(self) -> None:
        """Give the stored tensor's pages back."""
        self.source.done()


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of one component by name, none of them read yet.

    Attributes:
        location: the file that was opened: weights, or the index of shards.
        variant: what its name says between stem and extension, such as `fp16`.
    """

    def __init__(self, location: Path, variant: str | None, tensors: Mapping[str, StoredTensor]) -> None:
        self.location = location
        self.variant = variant
        self._tensors = dict(tensors)

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Map the weights that `directory` holds.

        Whole files are preferred to shards, safetensors to pickles, and the unnamed variant (full precision where a
        repository has both) to `fp16`, that to any other.

        Raises:
            ModelError: there are no weights, a file is damaged, or an index names a file that is not there.
        """
        location, variant = _find(directory)
        load = read_pickle if ".bin" in location.suffixes else read_safetensors
        if location.suffix != ".json":
            return cls(location, variant, load(location))
        tensors: dict[str, StoredTensor] = {}
        for shard, names in _read_index(location).items():
            held = load(location.parent / shard)
            if absent := sorted(names - held.keys()):
                raise ModelError(
                    f"{location}: {shard} should hold {', '.join(absent)} but does not. Download it again."
                )
            tensors.update((name, held[name]) for name in names)
        return cls(location, variant, tensors)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _find(directory: Path) -> tuple[Path, str | None]:
    """The file to open first (weights, or the index of shards) and its variant."""
    found: list[tuple[tuple[int, int, int, str], Path, str | None]] = []
    for path in directory.iterdir() if directory.is_dir() else ():
        # stem[.variant].extension, and for an index also stem.extension.index[.variant].json
        match = re.fullmatch(
            rf"(?P<stem>{'|'.join(_STEMS)})(\.(?P<variant>[^.]+))?\.(?P<kind>safetensors|bin)"
            r"(?P<index>\.index(\.(?P<index_variant>[^.]+))?\.json)?",
            path.name,
        )
        if match and not re.fullmatch(r"\d{5}-of-\d{5}", match["variant"] or ""):
            variant = match["variant"] or match["index_variant"] or ""
            order = (
                ["", "fp16"].index(variant) if variant in ("", "fp16") else 2,
                int(match["kind"] == "bin"),
                int(match["index"] is not None),
                path.name,
            )
            found.append((order, path, variant or None))
    if not found:
        held = ", ".join(sorted(path.name for path in directory.iterdir())) if directory.is_dir() else "no such folder"
        raise ModelError(
            f"{directory}: no weights found ({held or 'empty'}). Expected a file such as {_STEMS[0]}.safetensors, "
            f"model.safetensors or pytorch_model.bin, whole or with its index of shards."
        )
    _, path, variant_found = min(found)
    return path, variant_found


def _read_index(path: Path) -> dict[str, set[str]]:
    """Shard file → names of the tensors that it holds."""
    try:
        weight_map = read_json(path)["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, file in weight_map.items():
            shards.setdefault(file, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an index of shards ({error!r}). Download it again.") from error
    for shard in shards:
        if Path(shard).name != shard or not (path.parent / shard).is_file():
            raise ModelError(f"{path}: names the shard {shard!r}, which is not in {path.parent}. Fetch every shard.")
    return shards


def read_safetensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, StoredTensor]:
    """Names, shapes, types and mapped elements of a safetensors file's tensors whose names start with a prefix."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else size
        if 8 + length > size or length > _HEADER_LIMIT:
            raise ModelError(f"{path}: not a safetensors file, or cut short ({size} bytes). Download it again.")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ModelError(f"{path}: the safetensors header is not JSON ({error}). Download it again.") from error
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or not name.startswith(prefixes):
            continue
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise ModelError(
                f"{path}: tensor {name} has the type {entry['dtype']}; "
                f"known are {', '.join(_SAFETENSORS_TYPES)}. Convert the checkpoint to one of them."
            )
        shape = tuple(entry["shape"])
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        is_float8 = dtype in FORMATS
        storage = STORAGE_TYPES["uint8" if is_float8 else dtype]
        if end > size or end - start != prod(shape) * storage.itemsize:
            raise ModelError(
                f"{path}: tensor {name} of shape {shape} should lie at bytes {start} to {end} of {size}. "
                "The file is cut short or damaged: download it again."
            )
        raw = mapped[start:end].view(storage).reshape(shape)
        tensors[name] = _float8(name, raw, dtype) if is_float8 else StoredTensor(name, shape, dtype, raw)
    return scaled(tensors, str(path))


def _float8(name: str, raw: NDArray[Any], dtype: str, mapped: bool = True) -> StoredTensor:
    """A tensor of 8-bit numbers, each of which half precision holds."""
    return StoredTensor(name, raw.shape, "float16", raw, mapped, decoder(dtype))


def read_metadata(path: Path) -> dict[str, str]:
    """The words that a safetensors file holds beside its tensors; the file has been read as one before."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return dict(header.get("__metadata__") or {})


def read_pickle(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, StoredTensor]:
    """The same of a file that `torch.save` wrote; only tensors are unpickled, no code is run."""
    # Training code saves its own counters beside the model's state.
    state, mapped = unpickle(path)
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {"": state}
    tensors = {
        str(name): stored_tensor(path, name, tensor, mapped)
        for name, tensor in state.items()
        if str(name).startswith(prefixes)
    }
    return scaled(tensors, str(path))


def unpickle(path: Path) -> tuple[Any, bool]:
    """What `torch.save` wrote, with no code run, and whether its tensors are mapped from the file."""
    import torch

    # Files from before PyTorch 1.6 are no zip archives and cannot be mapped.
    try:
        mapped = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end says that there are more disks; what the loader says of it is what is told
        mapped = False
    try:
        return torch.load(path, mmap=mapped, weights_only=True, map_location="cpu"), mapped
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds more than tensors, and nothing else is read from it, because what a pickle brings along "
            f"could run code here ({_first_line(error)}). Get the model as safetensors."
        ) from error
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as PyTorch weights ({error}). Download it again.") from error


def stored_tensor(path: Path, name: str, tensor: Any, mapped: bool) -> StoredTensor:
    """A tensor that was unpickled."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ModelError(f"{path}: entry {name!r} is no tensor. Expected a plain state dictionary.")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype in FORMATS:
        return _float8(name, tensor.detach().view(torch.uint8).numpy(), dtype, mapped and tensor.is_contiguous())
    if dtype not in STORAGE_TYPES:
        raise ModelError(f"{path}: tensor {name} has the type {dtype}; known are {', '.join(STORAGE_TYPES)}.")
    raw = tensor.detach().view(torch.uint16) if dtype == "bfloat16" else tensor.detach()
    return StoredTensor(name, tuple(tensor.shape), dtype, raw.numpy(), mapped and raw.is_contiguous())


def _first_line(error: Exception) -> str:
    """The message without its advice to trust the file."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0].partition(" Please use")[0] if lines else type(error).__name__


_libc = ctypes.CDLL(None, use_errno=True)
