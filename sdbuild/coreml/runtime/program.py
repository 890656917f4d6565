"""A function of an ML Program, compiled once to a list of steps and run any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdbuild.coreml.package import WeightFile
from sdbuild.coreml.runtime.audit import Audit
from sdbuild.coreml.runtime.constants import Constant, parse_constant
from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels import KERNELS, Kernel
from sdbuild.coreml.runtime.types import FLOATING, STORAGE, MilType, mil_type

Observer = Callable[[str, str, Tensor], None]
"""Called after each operation with its output's name, its type and its result, which must not be changed."""

Environment = list[Tensor | None]
Source = int | Constant
"""Where an argument comes from: a slot of the environment, or a constant."""


@dataclass(frozen=True)
class Argument:
    """One named input of an operation, bound to what supplies it."""

    name: str
    kind: str
    sources: tuple[Source, ...]
    tuple_of_values: bool


@dataclass
class Step:
    """One operation, ready to run."""

    operation: str
    kernel: Kernel
    arguments: list[Argument]
    outputs: list[int]
    names: list[str]
    types: list[MilType]
    static: dict[str, Any] = field(default_factory=dict)
    dynamic: list[tuple[str, Callable[[Environment], Any]]] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)

    @property
    def slots(self) -> Iterable[int]:
        """The slots that the operation reads."""
        return (source for argument in self.arguments for source in argument.sources if isinstance(source, int))


class Program:
    """One function of an ML Program.

    Attributes:
        inputs: the function's inputs with their declared types.
        outputs: the names of its outputs.
        operations: how often each operation occurs among those that run.
    """

    def __init__(self, function: Any, weights: Callable[[str], WeightFile], *, precision: str, where: str) -> None:
        self._where = where
        self._round_to_half = precision == "fp16"
        block = function.block_specializations[function.opset]
        _refuse_unknown(block, where)
        self.inputs = {named.name: mil_type(named.type, f"{where}: input {named.name}") for named in function.inputs}
        self.outputs = list(block.outputs)
        self._scope: dict[str, Source] = {name: slot for slot, name in enumerate(self.inputs)}
        self._slot_types = list(self.inputs.values())
        self._weights = weights
        steps = [step for message in block.operations if (step := self._step(message)) is not None]
        self._output_sources = [self._lookup(name, "the program's outputs") for name in self.outputs]
        self._steps = _in_order_of_demand(steps, [s for s in self._output_sources if isinstance(s, int)])
        _plan_releases(self._steps, keep={s for s in self._output_sources if isinstance(s, int)})
        for step in self._steps:
            _bind(step)
        self.operations: dict[str, int] = {}
        for step in self._steps:
            self.operations[step.operation] = self.operations.get(step.operation, 0) + 1

    def run(
        self, inputs: Mapping[str, Tensor], *, observe: Observer | None = None, audit: Audit | None = None
    ) -> dict[str, Tensor]:
        """Compute the outputs from inputs in their run-time types.

        Raises:
            RuntimeModelError: an operation fails; the message names it.
        """
        environment: Environment = [None] * len(self._slot_types)
        for slot, (name, declared) in enumerate(self.inputs.items()):
            value = inputs[name]
            half = self._round_to_half and declared.element == "fp16"
            environment[slot] = value.half().float() if half else value
        with torch.inference_mode():
            for step in self._steps:
                self._execute(step, environment, observe, audit)
            return {
                name: _fetch(source, environment)
                for name, source in zip(self.outputs, self._output_sources, strict=True)
            }

    def _execute(self, step: Step, environment: Environment, observe: Observer | None, audit: Audit | None) -> None:
        try:
            arguments = {name: fetch(environment) for name, fetch in step.dynamic}
            result = step.kernel.function(**arguments, **step.static)
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
            raise RuntimeModelError(f"{self._where}: {step.operation} {step.names[0]}: {error}") from error
        except RuntimeModelError as error:
            raise RuntimeModelError(f"{self._where}: {step.operation} {step.names[0]}: {error}") from error
        del arguments
        for slot in step.releases:
            environment[slot] = None
        values = result if isinstance(result, tuple) else (result,)
        for slot, name, declared, raw in zip(step.outputs, step.names, step.types, values, strict=False):
            value = raw.to(STORAGE[declared.element])
            if len(value.shape) != len(declared.shape) or any(
                size is not None and size != actual for size, actual in zip(declared.shape, value.shape, strict=True)
            ):
                raise RuntimeModelError(
                    f"{self._where}: {step.operation} {name} gives the shape {tuple(value.shape)}, "
                    f"but the program declares {declared}"
                )
            if audit is not None and declared.element in FLOATING:
                audit.record(name, step.operation, declared.element, value)
            if self._round_to_half and declared.element == "fp16" and not step.kernel.exact:
                value = value.copy_(value.half())
            if observe is not None:
                observe(name, step.operation, value)
            environment[slot] = value

    def _lookup(self, name: str, where: str) -> Source:
        try:
            return self._scope[name]
        except KeyError:
            raise RuntimeModelError(f"{self._where}: {where} uses {name}, which nothing computes") from None

    def _step(self, message: Any) -> Step | None:
        """The step for an operation; constants and compressed weights enter the scope instead."""
        if message.type == "const":
            name = message.outputs[0].name
            self._scope[name] = parse_constant(message.attributes["val"], self._weights, f"{self._where}: const {name}")
            return None
        kernel = KERNELS[message.type]
        names = [output.name for output in message.outputs]
        types = [mil_type(output.type, f"{self._where}: {output.name}") for output in message.outputs]
        step = Step(message.type, kernel, self._arguments(message, kernel, names[0]), [], names, types)
        if message.type.startswith("constexpr_"):
            for index, (name, declared) in enumerate(zip(names, types, strict=True)):
                self._scope[name] = _decompressed(step, index, declared)
            return None
        if message.type == "cast":
            step.kernel = self._cast_kernel(step)
            step.arguments = [a for a in step.arguments if a.name in step.kernel.parameters]
        for name, declared in zip(names, types, strict=True):
            self._scope[name] = len(self._slot_types)
            step.outputs.append(len(self._slot_types))
            self._slot_types.append(declared)
        return step

    def _cast_kernel(self, step: Step) -> Kernel:
        """`identity` where a cast changes neither the stored type nor, in this precision, the values."""
        source = next(argument for argument in step.arguments if argument.name == "x").sources[0]
        before = self._slot_types[source] if isinstance(source, int) else source.type
        rounds = self._round_to_half and step.types[0].element == "fp16" and before.element != "fp16"
        same = STORAGE[before.element] == STORAGE[step.types[0].element]
        return KERNELS["identity"] if same and not rounds else step.kernel

    def _arguments(self, message: Any, kernel: Kernel, name: str) -> list[Argument]:
        where = f"{message.type} {name}"
        arguments = []
        values = {key: value for key, value in message.attributes.items() if key != "name"}
        for key, value in values.items():
            if key in kernel.parameters:
                constant = parse_constant(value, self._weights, f"{self._where}: {where}: {key}")
                arguments.append(Argument(key, kernel.parameters[key], (constant,), False))
        for key, argument in message.inputs.items():
            kind = kernel.parameters.get(key)
            if kind is None:
                raise RuntimeModelError(f"{self._where}: {where} has an input {key}, which this runtime does not know")
            sources = tuple(
                parse_constant(binding.value, self._weights, f"{self._where}: {where}: {key}")
                if binding.WhichOneof("binding") == "value"
                else self._lookup(binding.name, where)
                for binding in argument.arguments
            )
            arguments.append(Argument(key, kind, sources, len(sources) > 1))
        missing = kernel.required - {argument.name for argument in arguments}
        if missing:
            raise RuntimeModelError(f"{self._where}: {where} lacks {', '.join(sorted(missing))}")
        order = list(kernel.parameters)
        return sorted(arguments, key=lambda argument: order.index(argument.name))


def _refuse_unknown(block: Any, where: str) -> None:
    """Name every operation that no kernel implements, before anything is computed."""
    unknown: dict[str, str] = {}
    for message in block.operations:
        if message.type != "const" and message.type not in KERNELS:
            unknown.setdefault(message.type, message.outputs[0].name if message.outputs else "")
    if unknown:
        listed = ", ".join(f"{operation} (first: {name})" for operation, name in sorted(unknown.items()))
        raise RuntimeModelError(f"{where} uses operations that this runtime does not implement: {listed}")


def _decompressed(step: Step, index: int, declared: MilType) -> Constant:
    """A compressed weight as a constant that is decompressed whenever an operation asks for it."""
    arguments = step.arguments
    if step.operation == "constexpr_lut_to_dense":
        arguments = _keep_packed(arguments)

    def load() -> Tensor:
        values: dict[str, Any] = {}
        for argument in arguments:
            constant = argument.sources[0]
            assert isinstance(constant, Constant)
            values[argument.name] = constant.stored() if argument.kind == "tensor" else constant.value()
        result = step.kernel.function(**values)
        return result[index] if isinstance(result, tuple) else result

    for argument in arguments:
        if not all(isinstance(source, Constant) for source in argument.sources):
            raise RuntimeModelError(f"{step.operation} {step.names[0]}: {argument.name} is not a constant")
    return Constant(declared, load)


def _keep_packed(arguments: list[Argument]) -> list[Argument]:
    """One table for a whole tensor of packed indices: look them up without unpacking, as in iOS 16's encoding."""
    by_name = {argument.name: argument.sources[0] for argument in arguments}
    indices, lut = by_name["indices"], by_name["lut"]
    if not (isinstance(indices, Constant) and isinstance(lut, Constant)) or indices.packed is None:
        return arguments
    if lut.type.elements != lut.type.shape[-2] or lut.type.shape[-1] != 1:
        return arguments
    packed = indices.packed
    sizes = torch.tensor(indices.type.shape)
    raw = Constant(MilType("uint8", (packed.numel(),)), lambda: packed)
    shape = Constant(MilType("int64", (sizes.numel(),)), lambda: sizes)
    return [
        Argument("indices", "tensor", (raw,), False),
        Argument("lut", "tensor", (lut,), False),
        Argument("shape", "attribute", (shape,), False),
    ]


def _in_order_of_demand(steps: Sequence[Step], wanted: Sequence[int]) -> list[Step]:
    """The steps that the outputs need, each as late as its first reader allows.

    Converters put like operations of all attention heads next to each other; computing one head to its end before the
    next begins keeps far fewer results alive.
    """
    maker = {slot: step for step in steps for slot in step.outputs}
    ordered: list[Step] = []
    entered: set[int] = set()
    for output in wanted:
        stack: list[tuple[Step, bool]] = [(maker[output], False)] if output in maker else []
        while stack:
            step, ready = stack.pop()
            if ready:
                ordered.append(step)
                continue
            if id(step) in entered:
                continue
            entered.add(id(step))
            stack.append((step, True))
            stack.extend((maker[slot], False) for slot in reversed(list(step.slots)) if slot in maker)
    return ordered


def _plan_releases(steps: Sequence[Step], keep: set[int]) -> None:
    """Let each step drop the results that nothing after it reads."""
    seen = set(keep)
    for step in reversed(steps):
        for slot in dict.fromkeys(step.slots):
            if slot not in seen:
                seen.add(slot)
                step.releases.append(slot)


def _bind(step: Step) -> None:
    """Turn a step's arguments into fixed values and into functions of the environment."""
    for argument in step.arguments:
        sources = argument.sources
        if argument.kind == "attribute":
            if all(isinstance(source, Constant) for source in sources):
                values = [source.value() for source in sources if isinstance(source, Constant)]
                step.static[argument.name] = values if argument.tuple_of_values else values[0]
            else:
                step.dynamic.append((argument.name, _attribute(sources, argument.tuple_of_values)))
        elif argument.kind == "tensors":
            step.dynamic.append((argument.name, _tensors(sources)))
        elif step.kernel.stored and isinstance(sources[0], Constant):
            step.dynamic.append((argument.name, _stored(sources[0])))
        else:
            step.dynamic.append((argument.name, _tensor(sources[0])))


def _fetch(source: Source, environment: Environment) -> Tensor:
    if isinstance(source, Constant):
        return source.tensor()
    value = environment[source]
    assert value is not None
    return value


def _tensor(source: Source) -> Callable[[Environment], Tensor]:
    return lambda environment: _fetch(source, environment)


def _stored(source: Constant) -> Callable[[Environment], Tensor]:
    return lambda environment: source.stored()


def _tensors(sources: tuple[Source, ...]) -> Callable[[Environment], list[Tensor]]:
    return lambda environment: [_fetch(source, environment) for source in sources]


def _attribute(sources: tuple[Source, ...], several: bool) -> Callable[[Environment], Any]:
    def fetch(environment: Environment) -> Any:
        values = [_fetch(source, environment).tolist() for source in sources]
        return values if several else values[0]

    return fetch
