"""Faults put into a package on purpose: the program stays valid, but is no longer the original's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sdbuild.coreml.package import Package

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
Edit = Callable[[np.ndarray], np.ndarray]


def copy_artifact(artifact: Path, out: Path) -> Path:
    """A writable copy of an artifact."""
    shutil.copytree(artifact, out)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def edit_weight(artifact: Path, name: str, edit: Edit) -> None:
    """Replace the stored weight whose constant's name contains `name`."""
    (path,) = artifact.glob("*.mlpackage")
    package = Package.open(path)
    value = _only(constant for constant in _constants(package) if name in constant.outputs[0].name)
    value = value.attributes["val"]
    assert package.weights is not None
    blob = package.weights.blob(value.blobFileValue.offset)
    shape = tuple(dimension.constant.size for dimension in value.type.tensorType.dimensions)
    before = package.weights.array(blob.offset, np.float16, shape).copy()
    package.weights.close()
    after = edit(before)
    assert not np.array_equal(before, after)
    with (path / WEIGHTS).open("r+b") as file:
        file.seek(blob.data_offset)
        file.write(np.ascontiguousarray(after, np.float16).tobytes())


def edit_epsilons(artifact: Path, factor: float) -> None:
    """Multiply the epsilon of every normalisation: the small positive half-precision scalars."""
    (path,) = artifact.glob("*.mlpackage")
    package = Package.open(path)
    edited = 0
    for constant in _constants(package):
        value = constant.attributes["val"]
        if value.WhichOneof("value") != "immediateValue" or value.type.tensorType.dataType != 10:
            continue
        scalar = np.frombuffer(value.immediateValue.tensor.bytes.values, np.float16)
        if scalar.size == 1 and 5e-6 < scalar[0] < 2e-5:
            value.immediateValue.tensor.bytes.values = (scalar * np.float16(factor)).tobytes()
            edited += 1
    assert edited
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(package.spec.SerializeToString())


def _constants(package: Package) -> Iterator[Any]:
    for function in package.spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from (operation for operation in block.operations if operation.type == "const")


def _only(found: Iterator[Any]) -> Any:
    candidates = list(found)
    assert len(candidates) == 1, [candidate.outputs[0].name for candidate in candidates]
    return candidates[0]
