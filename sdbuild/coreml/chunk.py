"""Split a package in two that give the same result one after the other, as a file operation.

The operations are cut in their order. What the second part needs of the first becomes outputs of the first package and
inputs of the second; half-precision values pass as float32, which holds them exactly (float16 outputs crash the Swift
side, coremltools#1947). Constants, plain or compressed, go to the parts that use them, and their bytes are copied
unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

from sdbuild.coreml.package import Package, WeightFile, WeightFileWriter, write_package
from sdbuild.coreml.program import (
    ProgramError,
    element_count,
    is_constant,
    main_block,
    main_function,
    name_of,
    read_names,
    set_string,
    set_tensor_type,
    shape_of,
    stored_values,
    weight_file,
)

_SLACK = 0.02
"""How much larger than necessary the larger part may be where that means fewer values between the parts."""

_ELEMENT_SIZES = {MIL_pb2.FLOAT16: 2, MIL_pb2.FLOAT32: 4, MIL_pb2.INT32: 4}
_FEATURE_TYPES = {
    MIL_pb2.FLOAT16: FeatureTypes_pb2.ArrayFeatureType.FLOAT32,
    MIL_pb2.FLOAT32: FeatureTypes_pb2.ArrayFeatureType.FLOAT32,
    MIL_pb2.INT32: FeatureTypes_pb2.ArrayFeatureType.INT32,
}
_MAXIMUM_RANK = 5


@dataclass(frozen=True)
class Feature:
    """A value that the first part hands to the second.

    Attributes:
        name: the output of the first package and the input of the second.
        value: the value's name in the whole program.
        half: it is float16 in the program, and passes as float32.
    """

    name: str
    value: str
    shape: tuple[int, ...]
    half: bool


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
    program = _Program(package, weights)
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
class _Cut:
    """A place between two steps: `position` is the first step of the second part."""

    position: int
    live: tuple[str, ...]
    live_bytes: int
    first_bytes: int
    second_bytes: int

    @property
    def larger(self) -> int:
        return max(self.first_bytes, self.second_bytes)


class _Program:
    """The operations of a program, who makes which value, and who reads it.

    Operations that are not constants are called steps.
    """

    def __init__(self, package: Package, weights: WeightFile) -> None:
        block = main_block(package)
        self.path = package.path
        self.description = package.spec.description
        self.inputs = {value.name: value for value in main_function(package).inputs}
        self.outputs = list(block.outputs)
        self.operations = list(block.operations)
        self.steps = [index for index, operation in enumerate(self.operations) if not is_constant(operation)]
        self.types = {output.name: output.type for operation in self.operations for output in operation.outputs}
        self._reads = [read_names(operation) for operation in self.operations]
        self._maker = {output.name: at for at, operation in enumerate(self.operations) for output in operation.outputs}
        self._sizes = {
            value.blobFileValue.offset: weights.blob(value.blobFileValue.offset).size
            for operation in self.operations
            for value in stored_values(operation)
        }
        self.used_bytes = sum(self._sizes[offset] for offset in self._blobs(range(len(self.steps))))

    def best_cut(self) -> _Cut:
        """The cut with the least to hand over among those whose larger part is about as small as possible."""
        cuts = list(self._cuts())
        if not cuts:
            raise ProgramError(
                f"{self.path} cannot be split: no place leaves all outputs in the second part "
                "and only float or int32 tensors of known shape between the parts"
            )
        smallest = min(cut.larger for cut in cuts)
        near = [cut for cut in cuts if cut.larger <= smallest * (1 + _SLACK)]
        return min(near, key=lambda cut: (cut.live_bytes, len(cut.live), cut.larger, cut.position))

    def feature(self, value: str) -> Feature:
        """How a value passes from part to part."""
        shape = shape_of(self.types[value]) or ()
        half = self.types[value].tensorType.dataType == MIL_pb2.FLOAT16
        return Feature(self.unused_name(f"{value}_float32") if half else value, value, shape, half)

    def unused_name(self, name: str) -> str:
        """The name, made longer until no value of the program has it."""
        while name in self.types or name in self.inputs:
            name += "_"
        return name

    def part(self, steps: Iterable[int], outputs: Iterable[str]) -> list[Any]:
        """Steps (by their number) and all constants that they or the outputs read, in the program's order."""
        wanted = {self.steps[step] for step in steps}
        pending = [name for index in wanted for name in self._reads[index]] + list(outputs)
        while pending:
            index = self._maker.get(pending.pop())
            if index is not None and index not in wanted and is_constant(self.operations[index]):
                wanted.add(index)
                pending += self._reads[index]
        return [self.operations[index] for index in sorted(wanted)]

    def read_inputs(self, operations: Iterable[Any]) -> list[str]:
        """The original inputs that operations read, in their declared order."""
        names = {name for operation in operations for name in read_names(operation)}
        return [name for name in self.inputs if name in names]

    def _blobs(self, steps: Iterable[int]) -> set[int]:
        return {value.blobFileValue.offset for operation in self.part(steps, ()) for value in stored_values(operation)}

    def _cuts(self) -> Iterator[_Cut]:
        """Every possible cut, first to last."""
        count = len(self.steps)
        added, gone = [0] * (count + 1), [0] * (count + 1)
        first_use: dict[int, int] = {}
        last_use: dict[int, int] = {}
        last_read: dict[str, int] = dict.fromkeys(self.outputs, count)
        for step in range(count):
            for offset in self._blobs([step]):
                first_use.setdefault(offset, step)
                last_use[offset] = step
        for step, index in reversed(list(enumerate(self.steps))):
            for name in self._reads[index]:
                last_read.setdefault(name, step)
        for offset, step in first_use.items():
            added[step] += self._sizes[offset]
            gone[last_use[offset]] += self._sizes[offset]
        live: dict[str, int] = {}
        first_bytes, second_bytes = 0, self.used_bytes
        for position in range(1, count):
            done = position - 1
            first_bytes += added[done]
            second_bytes -= gone[done]
            live = {name: until for name, until in live.items() if until >= position}
            for output in self.operations[self.steps[done]].outputs:
                if last_read.get(output.name, -1) >= position:
                    live[output.name] = last_read[output.name]
            sizes = [self._passable(name) for name in live]
            if sizes and all(sizes) and count not in live.values():
                yield _Cut(position, tuple(live), sum(sizes), first_bytes, second_bytes)

    def _passable(self, name: str) -> int:
        """Bytes of a value that can pass from part to part; 0 for one that cannot."""
        shape = shape_of(self.types[name])
        if not shape or len(shape) > _MAXIMUM_RANK:
            return 0
        return element_count(shape) * _ELEMENT_SIZES.get(self.types[name].tensorType.dataType, 0)


@dataclass(frozen=True)
class _Part:
    """What one of the two packages holds."""

    operations: list[Any]
    inputs: list[tuple[Any, Any]]  # the function's declaration and the model's description of each
    outputs: list[tuple[str, Any]]  # the value and the model's description of each


def _first_part(program: _Program, cut: _Cut, features: Sequence[Feature]) -> _Part:
    operations = program.part(range(cut.position), ())
    inputs = _original_inputs(program, operations)
    half = [feature for feature in features if feature.half]
    if half:
        target = program.unused_name("chunk_float32_dtype")
        operations.append(_string_constant(target, "fp32"))
        operations += [_cast(feature.value, feature.name, target, MIL_pb2.FLOAT32, feature.shape) for feature in half]
    outputs = [(feature.name, _describe(program, feature)) for feature in features]
    return _Part(operations, inputs, outputs)


def _second_part(program: _Program, cut: _Cut, features: Sequence[Feature]) -> _Part:
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


def _original_inputs(program: _Program, operations: Iterable[Any]) -> list[tuple[Any, Any]]:
    descriptions = {feature.name: feature for feature in program.description.input}
    return [(program.inputs[name], descriptions[name]) for name in program.read_inputs(operations)]


def _describe(program: _Program, feature: Feature) -> Any:
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
            copied: dict[int, int] = {}
            for operation in part.operations:
                added = block.operations.add()
                added.CopyFrom(operation)
                for value in stored_values(added):
                    offset = value.blobFileValue.offset
                    if offset not in copied:
                        copied[offset] = writer.copy(weights, offset)
                    value.blobFileValue.offset = copied[offset]
        write_package(out, spec, temporary if copied else None)
    finally:
        temporary.unlink(missing_ok=True)
