"""Constants of a program: literals in the specification, blobs in the mapped weight file, and decompressed weights.

Large constants are kept as they are stored. What a kernel is handed is made when the operation runs and dropped after
it, so that a half-precision model needs its float32 weights one operation at a time only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdbuild.coreml.package import WeightFile
from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.packing import unpack
from sdbuild.coreml.runtime.types import STORAGE, STORED, SUB_BYTE_BITS, MilType, mil_type

_KEPT_ELEMENTS = 16384  # constants up to this size stay converted


class Constant:
    """A value that is known before the program runs.

    Attributes:
        type: the declared type.
        packed: the bit-packed bytes of a sub-byte type as they are stored, else None.
    """

    def __init__(self, declared: MilType, load: Callable[[], Tensor], packed: Tensor | None = None) -> None:
        self.type = declared
        self.packed = packed
        self._load = load
        self._kept: Tensor | None = None
        self._small = all(size is not None for size in declared.shape) and declared.elements <= _KEPT_ELEMENTS

    def stored(self) -> Tensor:
        """The value in its stored element type: half for fp16, a byte for each element of the sub-byte types."""
        return self._load()

    def tensor(self) -> Tensor:
        """The value as kernels compute with it."""
        if self._kept is not None:
            return self._kept
        value = self._load().to(STORAGE[self.type.element])
        if self._small:
            self._kept = value
        return value

    def value(self) -> Any:
        """The value in Python's own types: a scalar, or lists."""
        return self.tensor().tolist()


class Text(Constant):
    """A string, which parameters such as a padding type have."""

    def __init__(self, declared: MilType, text: str) -> None:
        super().__init__(declared, _no_tensor)
        self._text = text

    def value(self) -> str:
        """The string."""
        return self._text


def _no_tensor() -> Tensor:
    raise RuntimeModelError("a string stands where a tensor is needed")


def parse_constant(value: Any, weights: Callable[[str], WeightFile], where: str) -> Constant:
    """The constant that a ``Value`` message holds.

    Args:
        value: the message.
        weights: gives the weight file for a ``blobFileValue.fileName``.
        where: what the value belongs to, for messages.

    Raises:
        RuntimeModelError: the value has a form that no ML Program of a supported version contains.
    """
    declared = mil_type(value.type, where)
    if value.WhichOneof("value") == "blobFileValue":
        return _from_file(value.blobFileValue, declared, weights)
    if value.immediateValue.WhichOneof("value") != "tensor":
        raise RuntimeModelError(f"{where} holds a {value.immediateValue.WhichOneof('value')}, not a tensor")
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if declared.element == "string":
        return Text(declared, tensor.strings.values[0])
    if kind == "bytes":
        return _from_bytes(torch.frombuffer(bytearray(tensor.bytes.values), dtype=torch.uint8), declared)
    literal = torch.tensor(getattr(tensor, kind).values if kind else [], dtype=STORED[declared.element])
    if kind is not None and literal.numel() == 1 != declared.elements:
        literal = literal.expand(declared.elements)
    literal = literal.reshape([size or 0 for size in declared.shape])
    return Constant(declared, lambda: literal)


def _from_file(blob: Any, declared: MilType, weights: Callable[[str], WeightFile]) -> Constant:
    with warnings.catch_warnings():
        # The map is read-only; nothing writes to constants.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(weights(blob.fileName).raw(blob.offset))
    return _from_bytes(data, declared)


def _from_bytes(data: Tensor, declared: MilType) -> Constant:
    shape = [size or 0 for size in declared.shape]
    bits = SUB_BYTE_BITS.get(declared.element)
    if bits is not None:
        signed = declared.element.startswith("int")
        return Constant(
            declared, lambda: unpack(data, bits, declared.elements, signed=signed).reshape(shape), packed=data
        )
    view = (data.view(STORED[declared.element]) if data.numel() else data.to(STORED[declared.element])).reshape(shape)
    return Constant(declared, lambda: view)
