"""Split a package in two that give the same result one after the other, as a file operation.

The operations are cut in their order. What the second part needs of the first becomes outputs of the first package and
inputs of the second; half-precision values pass as float32, which holds them exactly (float16 outputs crash the Swift
side, coremltools#1947). Constants, plain or compressed, go to the parts that use them, and their bytes are copied
unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.coreml.cut import Cut, Feature, Program
from sdbuild.coreml.package import Package, WeightFile, WeightFileWriter, write_package
from sdbuild.coreml.program import (
    BlobCopier,
    ProgramError,
    name_of,
    set_string,
    set_tensor_type,
    weight_file,
    with_nested,
)
from sdbuild.coreml.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

_FEATURE_TYPES = {
    MIL_pb2.FLOAT16: FeatureTypes_pb2.ArrayFeatureType.FLOAT32,
    MIL_pb2.FLOAT32: FeatureTypes_pb2.ArrayFeatureType.FLOAT32,
    MIL_pb2.INT32: FeatureTypes_pb2.ArrayFeatureType.INT32,
}


@dataclass(frozen=True)
class ChunkReport:
    """How a package was split.

    Attributes:
        first_operation: the operation with which the second part begins.
        features: what passes from the first part to the second.
        first_bytes: stored constants of the first part, in bytes.
        second_bytes: those of the second.
        shared_bytes: those in both.
    """

    first_operation: str
    features: tuple[Feature, ...]
    first_bytes: int
    second_bytes: int
    shared_bytes: int


def chunk(source: Path, first: Path, second: Path) -> ChunkReport:
    """Split a package into two of nearly equal stored bytes.

    Each part declares those of the original inputs that it reads; an app may give it all of them. The second part has
    the original outputs.

    Args:
        source: an `.mlpackage` that holds an ML Program.
        first: the first `.mlpackage` to create.
        second: the second one.

    Raises:
        ProgramError: there is no place where the program can be cut.
        PackageError: the package is damaged.
    """
    package = Package.open(source)
    weights = weight_file(package)
    if package.spec.description.state:
        raise ProgramError(f"{source} keeps state between predictions, and two packages cannot share it")
    program = Program(package, weights)
    cut = program.best_cut()
    features = tuple(program.feature(value) for value in cut.live)
    _write(package, weights, first, _first_part(program, cut, features))
    _write(package, weights, second, _second_part(program, cut, features))
    weights.close()
    return ChunkReport(
        first_operation=name_of(program.operations[program.steps[cut.position]]),
        features=features,
        first_bytes=cut.first_bytes,
        second_bytes=cut.second_bytes,
        shared_bytes=cut.first_bytes + cut.second_bytes - program.used_bytes,
    )


@dataclass(frozen=True)
class _Part:
    """What one of the two packages holds."""

    operations: list[Any]
    inputs: list[tuple[Any, Any]]  # the function's declaration and the model's description of each
    outputs: list[tuple[str, Any]]  # the value and the model's description of each


def _first_part(program: Program, cut: Cut, features: Sequence[Feature]) -> _Part:
    operations = program.part(range(cut.position), ())
    inputs = _original_inputs(program, operations)
    half = [feature for feature in features if feature.half]
    if half:
        target = program.unused_name("chunk_float32_dtype")
        operations.append(_string_constant(target, "fp32"))
        operations += [_cast(feature.value, feature.name, target, MIL_pb2.FLOAT32, feature.shape) for feature in half]
    outputs = [(feature.name, _describe(program, feature)) for feature in features]
    return _Part(operations, inputs, outputs)


def _second_part(program: Program, cut: Cut, features: Sequence[Feature]) -> _Part:
    body = program.part(range(cut.position, len(program.steps)), program.outputs)
    inputs = _original_inputs(program, body)
    operations = []
    half = [feature for feature in features if feature.half]
    if half:
        target = program.unused_name("chunk_float16_dtype")
        operations.append(_string_constant(target, "fp16"))
        operations += [_cast(feature.name, feature.value, target, MIL_pb2.FLOAT16, feature.shape) for feature in half]
    for feature in features:
        declared = MIL_pb2.NamedValueType(name=feature.name)
        source_type = program.types[feature.value].tensorType.dataType
        set_tensor_type(declared.type, MIL_pb2.FLOAT32 if feature.half else source_type, feature.shape)
        inputs.append((declared, _describe(program, feature)))
    descriptions = {output.name: output for output in program.description.output}
    return _Part(operations + body, inputs, [(name, descriptions[name]) for name in program.outputs])


def _original_inputs(program: Program, operations: Iterable[Any]) -> list[tuple[Any, Any]]:
    descriptions = {feature.name: feature for feature in program.description.input}
    return [(program.inputs[name], descriptions[name]) for name in program.read_inputs(operations)]


def _describe(program: Program, feature: Feature) -> Any:
    described = Model_pb2.FeatureDescription(name=feature.name)
    described.shortDescription = f"{feature.value}, which the first chunk computes for the second"
    described.type.multiArrayType.shape.extend(feature.shape)
    described.type.multiArrayType.dataType = _FEATURE_TYPES[program.types[feature.value].tensorType.dataType]
    return described


def _string_constant(name: str, text: str) -> Any:
    operation = MIL_pb2.Operation(type="const")
    output = operation.outputs.add(name=name)
    output.type.tensorType.dataType = MIL_pb2.STRING
    set_string(operation.attributes["name"], name)
    set_string(operation.attributes["val"], text)
    return operation


def _cast(value: str, result: str, target: str, data_type: int, shape: Sequence[int]) -> Any:
    operation = MIL_pb2.Operation(type="cast")
    operation.inputs["x"].arguments.add().name = value
    operation.inputs["dtype"].arguments.add().name = target
    output = operation.outputs.add(name=result)
    set_tensor_type(output.type, data_type, shape)
    set_string(operation.attributes["name"], f"{result}_cast")
    return operation


def _write(package: Package, weights: WeightFile, out: Path, part: _Part) -> None:
    """Write one part; all that does not differ between the parts is the source's own."""
    spec = Model_pb2.Model()
    spec.CopyFrom(package.spec)
    for feature_list in (spec.description.input, spec.description.output):
        del feature_list[:]
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    del function.inputs[:]
    del block.operations[:]
    del block.outputs[:]
    for declared, described in part.inputs:
        function.inputs.add().CopyFrom(declared)
        spec.description.input.add().CopyFrom(described)
    for name, described in part.outputs:
        block.outputs.append(name)
        spec.description.output.add().CopyFrom(described)
    temporary = out.with_name(out.name + ".weights")
    try:
        with WeightFileWriter(temporary) as writer:
            copy_blobs = BlobCopier(weights, writer)
            for operation in part.operations:
                added = block.operations.add()
                added.CopyFrom(operation)
                for inner in with_nested(added):
                    copy_blobs(inner)
        write_package(out, spec, temporary if copy_blobs.count else None)
    finally:
        temporary.unlink(missing_ok=True)
