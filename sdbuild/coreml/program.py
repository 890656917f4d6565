"""What palettization and chunking both need to know about the program inside a package: names, shapes, stored bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from sdbuild.coreml.package import Package, WeightFile, WeightFileWriter
from sdbuild.coreml.proto import MIL_pb2
from sdbuild.errors import SdbuildError

_IOS18 = 8


class ProgramError(SdbuildError):
    """A program cannot be transformed as asked."""


def main_function(package: Package) -> Any:
    """The one function of an ML Program.

    Raises:
        ProgramError: the package holds another kind of model, or several functions.
    """
    if package.spec.WhichOneof("Type") != "mlProgram":
        raise ProgramError(
            f"{package.path} is not an ML Program; convert it with a deployment target of iOS16 or later"
        )
    functions = package.spec.mlProgram.functions
    if list(functions) != ["main"]:
        raise ProgramError(
            f"{package.path} has the functions {', '.join(sorted(functions))}; "
            "only a model with a single function `main` can be transformed"
        )
    return functions["main"]


def main_block(package: Package) -> Any:
    """The operations of the main function in the opset that the package is written for."""
    function = main_function(package)
    if function.opset not in function.block_specializations:
        raise ProgramError(f"{package.path} declares the opset {function.opset} but holds no operations for it")
    return function.block_specializations[function.opset]


def has_ios18_operations(package: Package) -> bool:
    """Whether the program may use the operations of iOS 18: sub-byte types, look-up tables for groups of channels."""
    opset = main_function(package).opset
    return opset.startswith("CoreML") and int(opset.removeprefix("CoreML")) >= _IOS18


def weight_file(package: Package) -> WeightFile:
    """The package's weight file.

    Raises:
        ProgramError: it has none.
    """
    if package.weights is None:
        raise ProgramError(f"{package.path} has no weight file: there is nothing to transform")
    return package.weights


def operations(block: Any) -> Iterator[Any]:
    """Every operation of a block, those of nested blocks after the operation that holds them."""
    for operation in block.operations:
        yield from with_nested(operation)


def with_nested(operation: Any) -> Iterator[Any]:
    """An operation, and then those of its blocks."""
    yield operation
    for block in operation.blocks:
        yield from operations(block)


def is_constant(operation: Any) -> bool:
    """Whether the operation's value is known at load time: plain and compressed constants."""
    kind: str = operation.type
    return kind == "const" or kind.startswith("constexpr_")


def name_of(operation: Any) -> str:
    """The operation's own name, or its first output's."""
    if "name" in operation.attributes:
        values = operation.attributes["name"].immediateValue.tensor.strings.values
        if values:
            return str(values[0])
    return str(operation.outputs[0].name) if operation.outputs else operation.type


def read_names(operation: Any) -> list[str]:
    """Values that an operation reads from its surroundings, those that its nested blocks read included."""
    # A message's maps come in another order in each process.
    arguments = [operation.inputs[key] for key in sorted(operation.inputs)]
    names = [binding.name for argument in arguments for binding in argument.arguments if binding.name]
    for block in operation.blocks:
        own = {value.name for value in block.inputs}
        own |= {output.name for inner in block.operations for output in inner.outputs}
        inner_names = [name for inner in block.operations for name in read_names(inner)]
        names += [name for name in (*inner_names, *block.outputs) if name not in own]
    return list(dict.fromkeys(names))


def stored_values(operation: Any) -> Iterator[Any]:
    """The operation's own values that stand in the weight file, in a fixed order."""
    for key in sorted(operation.attributes):
        if operation.attributes[key].WhichOneof("value") == "blobFileValue":
            yield operation.attributes[key]
    for key in sorted(operation.inputs):
        for binding in operation.inputs[key].arguments:
            if binding.WhichOneof("binding") == "value" and binding.value.WhichOneof("value") == "blobFileValue":
                yield binding.value


class BlobCopier:
    """Copies what operations store from one weight file to another; what several of them share is copied once."""

    def __init__(self, source: WeightFile, target: WeightFileWriter) -> None:
        self._source = source
        self._target = target
        self._moved: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many blobs were copied."""
        return len(self._moved)

    def __call__(self, operation: Any) -> None:
        """Copy the operation's own blobs and make it refer to the copies."""
        for value in stored_values(operation):
            offset = value.blobFileValue.offset
            if offset not in self._moved:
                self._moved[offset] = self._target.copy(self._source, offset)
            value.blobFileValue.offset = self._moved[offset]


def shape_of(value_type: Any) -> tuple[int, ...] | None:
    """The static shape of a tensor type; None for other types and for unknown dimensions."""
    if value_type.WhichOneof("type") != "tensorType":
        return None
    dimensions = value_type.tensorType.dimensions
    if any(dimension.WhichOneof("dimension") != "constant" for dimension in dimensions):
        return None
    return tuple(dimension.constant.size for dimension in dimensions)


def element_count(shape: Iterable[int]) -> int:
    """How many elements a tensor of that shape has."""
    return prod(shape)


def set_tensor_type(value_type: Any, data_type: int, shape: Iterable[int]) -> None:
    """Make a value type a tensor of that element type (a `MIL_pb2.DataType`) and shape."""
    sizes = list(shape)
    value_type.Clear()
    value_type.tensorType.dataType = data_type
    value_type.tensorType.rank = len(sizes)
    for size in sizes:
        value_type.tensorType.dimensions.add().constant.size = size


def set_string(value: Any, text: str) -> None:
    """Make a value the given string."""
    value.Clear()
    value.type.tensorType.dataType = MIL_pb2.STRING
    value.immediateValue.tensor.strings.values.append(text)
