"""What a program needs in memory, told from the program itself: its weights, and its results at the fullest moment.

The rules, which are those of any compiler that reuses buffers (Aho, Lam, Sethi, Ullman, Compilers, 2nd edition,
section 9.2.5, live variables): a result has a buffer from the operation that makes it to the last one that reads it;
reshapes share their operand's buffer; an element-wise operation writes over an operand that nobody reads afterwards.
Inputs and outputs belong to the caller and live throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from sdbuild.coreml.order import in_order_of_demand
from sdbuild.coreml.package import Package
from sdbuild.coreml.program import is_constant, main_block, main_function, read_names, shape_of
from sdbuild.coreml.program import operations as all_operations
from sdbuild.coreml.proto import MIL_pb2

_VIEWS = frozenset({"reshape", "expand_dims", "squeeze", "identity"})
# Operations whose result stands where an operand of the same size stood, element by element or row by row.
_IN_PLACE = frozenset(
    {
        *(
            "add",
            "sub",
            "mul",
            "real_div",
            "maximum",
            "minimum",
            "pow",
            "square",
            "sqrt",
            "rsqrt",
            "exp",
            "exp2",
            "log",
        ),
        *(
            "abs",
            "clip",
            "relu",
            "sigmoid",
            "silu",
            "tanh",
            "gelu",
            "erf",
            "softmax",
            "sin",
            "cos",
            "inverse",
            "select",
        ),
    }
)
_BITS = {
    "FLOAT16": 16,
    "BFLOAT16": 16,
    "FLOAT32": 32,
    "FLOAT64": 64,
    "BOOL": 8,
    "STRING": 0,
    **{f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "INT4": 4,
    "UINT1": 1,
    "UINT2": 2,
    "UINT3": 3,
    "UINT4": 4,
    "UINT6": 6,
}


@dataclass(frozen=True)
class Footprint:
    """Memory of one model while it runs, in bytes.

    Attributes:
        stored: its weights as the package stores them.
        expanded: its weights with every compressed one written out in the type that the program computes with.
        activations: inputs, outputs and results at the fullest moment; None where a size is known only at run time.
    """

    stored: int
    expanded: int
    activations: int | None


class _UnknownSizeError(Exception):
    """A value's size is known only at run time."""


def footprint(package: Package) -> Footprint:
    """The footprint of an ML Program; only the specification is read, and of the weight file the sizes.

    Raises:
        ProgramError: the package holds no ML Program with the one function `main`.
    """
    stored, expanded = _weights(package)
    try:
        return Footprint(stored, expanded, _Liveness(package).peak())
    except _UnknownSizeError:
        return Footprint(stored, expanded, None)


def _weights(package: Package) -> tuple[int, int]:
    """Bytes of all weights as they are stored, and as the program reads them."""
    block = main_block(package)
    stored: dict[int, int] = {}
    dense: dict[object, int] = {}
    read = {name for operation in all_operations(block) if not is_constant(operation) for name in read_names(operation)}
    for operation in all_operations(block):
        offsets = sorted(_offsets(operation))
        for offset in offsets:
            assert package.weights is not None
            stored[offset] = package.weights.blob(offset).size
        if is_constant(operation):
            # Constants that share a blob are one constant; the few without one stand in the specification.
            names = [output.name for output in operation.outputs]
            if (offsets or operation.type != "const") and not read.isdisjoint(names):
                dense[tuple(offsets) or names[0]] = sum(_size(output.type) for output in operation.outputs)
        else:
            dense |= {offset: stored[offset] for offset in offsets}
    return sum(stored.values()), sum(dense.values())


def _offsets(operation: Any) -> Iterator[int]:
    """Where the operation's own values start in the weight file."""
    values = list(operation.attributes.values())
    for argument in operation.inputs.values():
        values += [binding.value for binding in argument.arguments if binding.WhichOneof("binding") == "value"]
    yield from (value.blobFileValue.offset for value in values if value.WhichOneof("value") == "blobFileValue")


@dataclass(frozen=True)
class _Step:
    """One operation: its type, the values that it reads, and its results with their sizes."""

    operation: str
    reads: tuple[str, ...]
    writes: dict[str, int]


@dataclass
class _Buffer:
    """Memory of a result, which reshapes and element-wise operations let several values share."""

    size: int
    fixed: bool = False  # it lives throughout
    names: int = 0  # the values in it that somebody has yet to read


@dataclass
class _Liveness:
    """Walks through a program once, with the buffers that each operation finds, makes and leaves."""

    package: Package
    _buffers: dict[str, _Buffer] = field(default_factory=dict)
    _live: int = 0
    _peak: int = 0

    def peak(self) -> int:
        """Bytes of all buffers at the fullest moment."""
        function, block = main_function(self.package), main_block(self.package)
        constants = {output.name for op in block.operations if is_constant(op) for output in op.outputs}
        steps = in_order_of_demand(
            [self._step(op, constants) for op in block.operations if not is_constant(op)],
            lambda step: step.reads,
            lambda step: step.writes,
            block.outputs,
        )
        for named in function.inputs:
            self._allocate(named.name, _size(named.type), fixed=True)
        last = {name: position for position, step in enumerate(steps) for name in step.reads}
        last |= dict.fromkeys(block.outputs, len(steps))
        for position, step in enumerate(steps):
            ending = [name for name in (*step.reads, *step.writes) if last.get(name, position) == position]
            self._run(step, ending)
        return self._peak

    def _step(self, operation: Any, constants: set[str]) -> _Step:
        reads = tuple(name for name in read_names(operation) if name not in constants)
        writes = {output.name: _size(output.type) for output in operation.outputs}
        return _Step(operation.type, reads, writes)

    def _run(self, step: _Step, ending: list[str]) -> None:
        """Give the step's results their buffers, then let go of the values that nobody reads any more."""
        free = [self._buffers[name] for name in ending if name in self._buffers]
        for name, size in step.writes.items():
            if step.operation in _VIEWS and step.reads:
                buffer = self._buffers[step.reads[0]]
            elif step.operation in _IN_PLACE and (reused := _reusable(free, size)) is not None:
                buffer = reused
            else:
                buffer = self._allocate(name, size)
            self._buffers[name] = buffer
            buffer.names += 1
        for name in ending:
            self._release(name)

    def _allocate(self, name: str, size: int, *, fixed: bool = False) -> _Buffer:
        buffer = self._buffers[name] = _Buffer(size, fixed)
        self._live += size
        self._peak = max(self._peak, self._live)
        return buffer

    def _release(self, name: str) -> None:
        """Let go of one name of a buffer; with its last name the buffer is free."""
        buffer = self._buffers.pop(name, None)
        if buffer is None:
            return
        buffer.names -= 1
        if buffer.names <= 0 and not buffer.fixed:
            self._live -= buffer.size


def _reusable(ending: list[_Buffer], size: int) -> _Buffer | None:
    """An operand's buffer of that size which nothing else needs any more."""
    return next((b for b in ending if b.size == size and b.names == 1 and not b.fixed), None)


def _size(value_type: Any) -> int:
    """Bytes of a tensor of that type."""
    shape = shape_of(value_type)
    if shape is None:
        raise _UnknownSizeError
    bits = _BITS[MIL_pb2.DataType.Name(value_type.tensorType.dataType)]
    return -(-prod(shape) * bits // 8)
