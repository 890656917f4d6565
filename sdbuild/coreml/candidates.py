"""Which constants of a program are compressed, how, and why the others are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdbuild.coreml.package import Package, WeightFile
from sdbuild.coreml.packing import BITS
from sdbuild.coreml.program import (
    ProgramError,
    element_count,
    has_ios18_operations,
    main_block,
    name_of,
    operations,
    read_names,
    shape_of,
)
from sdbuild.coreml.proto import MIL_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHT_THRESHOLD = 2048
"""Constants must have more elements than this, as in coremltools' default configuration."""

_FLOAT_SIZES = {MIL_pb2.FLOAT16: 2, MIL_pb2.FLOAT32: 4}


@dataclass(frozen=True)
class Untouched:
    """A constant that is large enough but was left as it is, and why."""

    name: str
    shape: tuple[int, ...]
    stored_bytes: int
    reason: str


@dataclass(frozen=True)
class Stored:
    """What decides the compressed bytes: constants that agree in it share them.

    Attributes:
        offset: the plain values in the source's weight file.
        single: the values are float32, not float16.
        groups: how many look-up tables or scales; 1 for one of the whole tensor.
        axis: the axis that is divided into groups.
    """

    offset: int
    single: bool
    bits: int
    groups: int
    axis: int


@dataclass(frozen=True)
class Candidate:
    """A constant to be compressed: operation number `position` of the main block, nested blocks included."""

    position: int
    name: str
    shape: tuple[int, ...]
    stored: Stored

    def values(self, weights: WeightFile) -> NDArray[Any]:
        """The plain values, a view of the weight file."""
        return weights.array(self.stored.offset, np.float32 if self.stored.single else np.float16, self.shape)


def select(
    package: Package, bits: int, exceptions: Mapping[str, int | None], group_size: int | None
) -> tuple[list[Candidate], list[Untouched]]:
    """Choose the constants to palettize.

    Like coremltools' default: floating-point constants of the weight file with more than 2048 elements and more than
    one dimension that some operation reads. Tables of embeddings (what `gather` looks up) are left alone.

    Args:
        package: the source.
        bits: width of an index.
        exceptions: other widths by operation name, None to leave a constant alone.
        group_size: output channels that share a table; None for one table a tensor.

    Raises:
        ProgramError: the opset cannot hold what is asked for, or an exception names no such constant.
    """
    _check_encodings(package, {bits, *(width for width in exceptions.values() if width is not None)}, group_size)
    return _select(package, bits, exceptions, group_size)


def select_channels(package: Package, bits: int) -> tuple[list[Candidate], list[Untouched]]:
    """The same constants for integers of that width with a scale for each output channel, which every opset holds."""
    return _select(package, bits, {}, 1)


def _select(
    package: Package, bits: int, exceptions: Mapping[str, int | None], group_size: int | None
) -> tuple[list[Candidate], list[Untouched]]:
    readers: dict[str, list[Any]] = defaultdict(list)
    constants = []
    for position, operation in enumerate(operations(main_block(package))):
        for name in read_names(operation):
            readers[name].append(operation)
        if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue":
            constants.append((position, operation))
    flags = _flags(package)
    candidates, untouched, seen = [], [], set()
    for position, operation in constants:
        name, value = name_of(operation), operation.attributes["val"]
        shape, data_type = shape_of(value.type) or (), value.type.tensorType.dataType
        if data_type not in _FLOAT_SIZES or element_count(shape) <= WEIGHT_THRESHOLD:
            continue
        seen.add(name)
        width = exceptions.get(name, bits)
        using = readers[operation.outputs[0].name]
        groups, axis, reason = 1, 0, _objection(operation, shape, using)
        if width is None:
            reason = "the configuration leaves it alone"
        if not reason and group_size is not None:
            groups, axis, reason = _groups(operation, shape, using, flags, group_size)
        if reason or width is None:
            untouched.append(Untouched(name, shape, element_count(shape) * _FLOAT_SIZES[data_type], reason))
            continue
        stored = Stored(value.blobFileValue.offset, data_type == MIL_pb2.FLOAT32, width, groups, axis)
        candidates.append(Candidate(position, name, shape, stored))
    unknown = sorted(set(exceptions) - seen)
    if unknown:
        raise ProgramError(
            f"{package.path} has no weight of more than {WEIGHT_THRESHOLD} elements called {', '.join(unknown)}; "
            "exceptions are matched by the names of its constants"
        )
    return candidates, untouched


def _check_encodings(package: Package, widths: set[int], group_size: int | None) -> None:
    wrong = sorted(widths - set(BITS))
    if wrong:
        raise ProgramError(f"{wrong[0]} bits: look-up tables have indices of {', '.join(map(str, BITS))} bits")
    if has_ios18_operations(package):
        return
    if 3 in widths:
        raise ProgramError(
            f"{package.path}: 3-bit look-up tables need iOS 18; convert with minimum_deployment_target iOS18"
        )
    if group_size is not None:
        raise ProgramError(
            f"{package.path}: look-up tables for groups of channels need iOS 18; convert with that deployment target"
        )


def _objection(operation: Any, shape: tuple[int, ...], using: list[Any]) -> str:
    """Why a constant cannot or should not be palettized; empty if it can."""
    if len(shape) < 2:
        return "one-dimensional constants cannot be palettized"
    if not using:
        return "no operation reads it"
    if any(reader.type.startswith("constexpr_") for reader in using):
        return "it is part of a compressed constant"
    own = operation.outputs[0].name
    if any(reader.type.startswith("gather") and _reads(reader, "x", own) for reader in using):
        return "it is a table of embeddings"
    return ""


def _reads(operation: Any, parameter: str, name: str) -> bool:
    if parameter not in operation.inputs:
        return False
    return any(binding.name == name for binding in operation.inputs[parameter].arguments)


def _groups(
    operation: Any, shape: tuple[int, ...], using: list[Any], flags: Mapping[str, bool], group_size: int
) -> tuple[int, int, str]:
    """Number of groups, their axis, and why there can be none; the axis is that of the readers' output channels."""
    axes = {_output_axis(reader, operation.outputs[0].name, flags) % len(shape) for reader in using}
    if len(axes) > 1:
        return 1, 0, "operations read it with output channels on different axes"
    (axis,) = axes
    if shape[axis] % group_size:
        return 1, 0, f"groups of {group_size} do not divide its {shape[axis]} channels"
    return shape[axis] // group_size, axis, ""


def _output_axis(reader: Any, name: str, flags: Mapping[str, bool]) -> int:
    if reader.type == "conv_transpose":
        return 1
    if reader.type != "matmul":
        return 0
    parameter, plain, transposed = ("y", -1, -2) if _reads(reader, "y", name) else ("x", -2, -1)
    flag = reader.inputs[f"transpose_{parameter}"].arguments[0] if f"transpose_{parameter}" in reader.inputs else None
    return transposed if flag is not None and flags.get(flag.name, False) else plain


def _flags(package: Package) -> dict[str, bool]:
    """The program's boolean constants by name."""
    return {
        operation.outputs[0].name: operation.attributes["val"].immediateValue.tensor.bools.values[0]
        for operation in operations(main_block(package))
        if operation.type == "const" and operation.attributes["val"].immediateValue.tensor.bools.values
    }
