"""From a MIL program to the messages of a package, with its weights streamed into the weight file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdbuild.coreml.lowering.deferred import DeferredArray
from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.coreml.lowering.expression import Expression
from sdbuild.coreml.lowering.patches import exporter
from sdbuild.coreml.package import WEIGHTS_REFERENCE, BlobType, WeightFileWriter
from sdbuild.coreml.write_behind import WriteBehind

_BLOB_TYPES = {
    "float16": BlobType.FLOAT16,
    "float32": BlobType.FLOAT32,
    "uint8": BlobType.UINT8,
    "int8": BlobType.INT8,
    "uint16": BlobType.UINT16,
    "int16": BlobType.INT16,
    "uint32": BlobType.UINT32,
    "int32": BlobType.INT32,
}

_PIECES_MAPPED = 4
"""After how many pieces the pages of a checkpoint's tensor are given back; those of a later piece are mapped again."""


def to_model(program: Any, weights: Path, deployment_target: str, written: Callable[[int], None]) -> Any:
    """Serialise a program; large constants go to the file `weights`.

    Args:
        program: a MIL `Program` after all passes.
        weights: the weight file to create.
        deployment_target: the opset, e.g. ``iOS16``.
        written: called with the bytes of each weight as it is done.

    Returns:
        A `Model` message with the program and the interface.
    """
    import coremltools as ct
    from coremltools.converters.mil.backend.mil import load as backend

    version = ct.target[deployment_target].value

    def store(var: Any) -> tuple[str, int]:
        offset = _write(writer, file, var.val)
        written(var.val.nbytes)
        return WEIGHTS_REFERENCE, offset

    file = WriteBehind(weights.open("wb"))
    with (
        WeightFileWriter(weights, file) as writer,
        exporter.PATCH.applied(store, _refuse_lost_values) as streaming,
        _one_thread(),
    ):
        message = streaming(prog=program, weights_dir=str(weights.parent), specification_version=version).export()
    return backend.CoreMLProtoExporter(
        program,
        message,
        None,
        None,
        classifier_config=None,
        convert_to="mlprogram",
        convert_from="pytorch",
        specification_version=version,
    ).export(version)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Casting is as fast as memory on one thread, and threads that wait for each other are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write(writer: WeightFileWriter, file: WriteBehind, array: Any) -> int:
    kind = _BLOB_TYPES[array.dtype.name]
    if not isinstance(array, DeferredArray):
        return writer.add(np.ascontiguousarray(array), kind, array.nbytes)
    return writer.add(_given_back(array.source, file), kind, array.nbytes)


def _given_back(expression: Expression, file: WriteBehind) -> Iterator[Any]:
    """The pieces of a constant; what was read for them does not stay in memory for longer than some pieces."""
    for number, piece in enumerate(expression.pieces(), 1):
        yield piece
        if not number % _PIECES_MAPPED:
            file.afterwards(expression.weight.done)
    file.afterwards(expression.weight.done)


def _refuse_lost_values(var: Any) -> None:
    """A deferred constant that some code copied behind our back shows as NaN; real constants hold none."""
    if not isinstance(var.val, np.ndarray) or isinstance(var.val, DeferredArray):
        return
    if var.val.dtype.kind == "f" and np.isnan(var.val).any():
        raise ConversionError(
            f"the constant {var.name} holds NaN: its values were lost on the way or never were numbers"
        )
