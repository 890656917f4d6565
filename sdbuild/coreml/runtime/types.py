"""MIL's element types and how the runtime stores them.

Floating-point results are kept in float32 tensors whatever the program declares: in ``fp16`` precision their values
are rounded to half after each operation, which shows exactly what half storage would and needs no conversion before the
next kernel. The unsigned types that torch's CPU kernels do not cover are kept in the next wider signed type.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from sdbuild.coreml.runtime.errors import RuntimeModelError

#: MIL.proto's DataType numbers and the names that the MIL text format and `cast` use.
ELEMENT_NAMES: dict[int, str] = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    13: "bf16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}

#: Bits of the types that are packed in files, least significant bits first.
SUB_BYTE_BITS: dict[str, int] = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6, "int4": 4}

#: The dtype that a run-time tensor of each declared type has.
STORAGE: dict[str, torch.dtype] = {
    "bool": torch.bool,
    "fp16": torch.float32,
    "fp32": torch.float32,
    "fp64": torch.float32,
    "bf16": torch.float32,
    "int4": torch.int8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint1": torch.uint8,
    "uint2": torch.uint8,
    "uint3": torch.uint8,
    "uint4": torch.uint8,
    "uint6": torch.uint8,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "uint64": torch.int64,
}

#: The dtype in which values of a whole-byte type lie in weight.bin and in the specification's byte fields.
STORED: dict[str, torch.dtype] = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
}

FLOATING = frozenset({"fp16", "fp32", "fp64", "bf16"})


@dataclass(frozen=True)
class MilType:
    """The declared type of a value.

    Attributes:
        element: the element type's MIL name, such as ``fp16``.
        shape: sizes, outermost first; None where a size is known only at run time.
    """

    element: str
    shape: tuple[int | None, ...]

    @property
    def elements(self) -> int:
        """The number of elements of a type whose sizes are all known."""
        return prod(size for size in self.shape if size is not None)

    def __str__(self) -> str:
        return f"tensor<{self.element}, [{', '.join('?' if size is None else str(size) for size in self.shape)}]>"


def mil_type(value_type: Any, where: str) -> MilType:
    """The type that a ``ValueType`` message declares.

    Raises:
        RuntimeModelError: the value is no tensor (a list, dictionary, tuple or state), or its element type is unknown.
    """
    kind = value_type.WhichOneof("type")
    if kind != "tensorType":
        raise RuntimeModelError(f"{where} is declared as a {kind}; this runtime runs tensors alone")
    tensor = value_type.tensorType
    element = ELEMENT_NAMES.get(tensor.dataType)
    if element is None:
        raise RuntimeModelError(
            f"{where} has the element type number {tensor.dataType}, which this runtime does not know"
        )
    shape = tuple(
        int(dimension.constant.size) if dimension.HasField("constant") else None for dimension in tensor.dimensions
    )
    return MilType(element, shape)
