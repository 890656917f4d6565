"""Where a program can be cut in two, and where best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sdbuild.coreml.package import Package, WeightFile
from sdbuild.coreml.program import (
    ProgramError,
    element_count,
    is_constant,
    main_block,
    main_function,
    operations,
    read_names,
    shape_of,
    stored_values,
    with_nested,
)
from sdbuild.coreml.proto import MIL_pb2

_SLACK = 0.02
"""How much larger than necessary the larger part may be where that means less to hand over."""

_ELEMENT_SIZES = {MIL_pb2.FLOAT16: 2, MIL_pb2.FLOAT32: 4, MIL_pb2.INT32: 4}
_MAXIMUM_RANK = 5
"""What a model's features can be: multi-arrays of one to five dimensions."""


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
class Cut:
    """A place between two steps: `position` is the first step of the second part."""

    position: int
    live: tuple[str, ...]
    live_bytes: int
    first_bytes: int
    second_bytes: int

    @property
    def larger(self) -> int:
        """Stored bytes of the larger part."""
        return max(self.first_bytes, self.second_bytes)


class Program:
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
            for operation in operations(block)
            for value in stored_values(operation)
        }
        self.used_bytes = sum(self._sizes[offset] for offset in self._blobs(range(len(self.steps))))

    def best_cut(self) -> Cut:
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
        return {
            value.blobFileValue.offset
            for operation in self.part(steps, ())
            for inner in with_nested(operation)
            for value in stored_values(inner)
        }

    def _cuts(self) -> Iterator[Cut]:
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
                yield Cut(position, tuple(live), sum(sizes), first_bytes, second_bytes)

    def _passable(self, name: str) -> int:
        """Bytes of a value that can pass from part to part; 0 for one that cannot."""
        shape = shape_of(self.types[name])
        if not shape or len(shape) > _MAXIMUM_RANK:
            return 0
        return element_count(shape) * _ELEMENT_SIZES.get(self.types[name].tensorType.dataType, 0)
