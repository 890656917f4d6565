"""The bits that `bundle.json` says a model's weights have, against the operations that hold them.

Read from the package's own program (coremltools' `mlmodel/format/MIL.proto`): a palettized weight is an operation with
a look-up table of 2 to the power of its bits, a linear one has a scale. A compiled model has no protobuf: nothing is
said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.features import specification_of
from sdbuild.bundle.linter.contents import Contents
from sdbuild.bundle.linter.violation import Violation
from sdbuild.bundle.wire import Value, WireError, fields, integers, message, text
from sdbuild.interface.swift.files import PACKAGE

_PROGRAM = 502  # Model.mlProgram
_LINEAR = {"constexpr_affine_dequantize": 8, "constexpr_blockwise_shift_scale": 8}
_PALETTIZED = "constexpr_lut_to_dense"


def lint_compression(models: Mapping[str, Any], contents: Contents) -> Iterator[Violation]:
    """Whether each package holds weights of the bits that the document names."""
    for name, path in contents.paths.items():
        entry = models.get(name)
        if path.suffix != PACKAGE or entry is None or "bits" not in entry or not any(path.rglob("weight.bin")):
            continue  # without a weight file there is nothing that could be compressed
        found = bits_of(path)
        if found is None:
            continue
        said = entry["bits"]
        shown = ", ".join(f"{bits} bits" for bits in sorted(found)) or "no compressed weights"
        if said is None and found:
            yield Violation("document-facts", f"bundle.json, models, {name}", f"says no bits, the model has {shown}")
        elif isinstance(said, int) and said not in found:
            yield Violation(
                "document-facts", f"bundle.json, models, {name}", f"says {said} bits, the model has {shown}"
            )


def bits_of(package: Path) -> frozenset[int] | None:
    """The widths of a package's compressed weights; None where it holds no ML Program."""
    specification = specification_of(package)
    programs = [message(value) for number, value in fields(specification) if number == _PROGRAM]
    if not programs:
        return None
    return frozenset(
        bits
        for program in programs
        for function in _entries(program, 2)
        for block in _entries(function, 3)
        for operation in _repeated(block, 3)
        if (bits := _bits(operation)) is not None
    )


def _bits(operation: memoryview) -> int | None:
    kind, tables = "", None
    for number, value in fields(operation):
        if number == 1:
            kind = text(value)
        elif number in (2, 5):  # inputs (iOS 18) and attributes (iOS 16)
            key, content = _entry(message(value))
            if key == "lut" and content is not None:
                tables = _binding(content) if number == 2 else content
    if kind in _LINEAR:
        return _LINEAR[kind]
    if kind != _PALETTIZED:
        return None
    if tables is None:
        raise WireError("a look-up operation without a table")
    shape = _shape(tables)
    entries = shape[0] if len(shape) == 1 else shape[-2]
    return entries.bit_length() - 1


def _binding(argument: memoryview) -> memoryview:
    """The value of an argument's first binding."""
    (binding,) = _repeated(argument, 1)
    (value,) = _repeated(binding, 2)
    return value


def _shape(value: memoryview) -> list[int]:
    """The dimensions of a value's tensor type."""
    (kind,) = _repeated(value, 2)
    (tensor,) = _repeated(kind, 1)
    sizes = []
    for dimension in _repeated(tensor, 3):
        (constant,) = _repeated(dimension, 1)
        sizes += [size for number, found in fields(constant) if number == 1 for size in integers(found)]
    return sizes


def _entries(container: memoryview, number: int) -> Iterator[memoryview]:
    """The values of a map of messages."""
    for entry in _repeated(container, number):
        _, content = _entry(entry)
        if content is not None:
            yield content


def _entry(entry: memoryview) -> tuple[str, memoryview | None]:
    found: dict[int, Value] = dict(fields(entry))
    return text(found.get(1, memoryview(b""))), message(found[2]) if 2 in found else None


def _repeated(container: memoryview, number: int) -> Iterator[memoryview]:
    return (message(value) for key, value in fields(container) if key == number)
