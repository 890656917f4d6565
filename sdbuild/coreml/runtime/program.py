"""A function of an ML Program, compiled once to a list of steps and run any number of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sdbuild.coreml.package import WeightFile
from sdbuild.coreml.runtime.attention import fused
from sdbuild.coreml.runtime.audit import Audit
from sdbuild.coreml.runtime.constants import Constant, parse_constant
from sdbuild.coreml.runtime.errors import RuntimeModelError
from sdbuild.coreml.runtime.kernels import KERNELS, Kernel
from sdbuild.coreml.runtime.steps import Argument, Environment, Source, Step, fetch, scheduled
from sdbuild.coreml.runtime.types import FLOATING, STORAGE, MilType, mil_type

Observer = Callable[[str, str, Tensor], None]
"""Called after each operation with its output's name, its type and its result, which must not be changed."""


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
        wanted = [source for source in self._output_sources if isinstance(source, int)]
        self._fused_steps = scheduled(fused(steps, wanted, round_to_half=self._round_to_half), wanted)
        self._steps = scheduled(steps, wanted)
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
            written = observe is not None or audit is not None
            for step in self._steps if written else self._fused_steps:
                self._execute(step, environment, observe, audit)
            return {
                name: fetch(source, environment)
                for name, source in zip(self.outputs, self._output_sources, strict=True)
            }

    def _execute(self, step: Step, environment: Environment, observe: Observer | None, audit: Audit | None) -> None:
        try:
            arguments = {name: supply(environment) for name, supply in step.dynamic}
            result = step.kernel.function(**arguments, **step.static)
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
            raise RuntimeModelError(f"{self._where}: {step.operation} {step.names[0]}: {error}") from error
        except RuntimeModelError as error:
            raise RuntimeModelError(f"{self._where}: {step.operation} {step.names[0]}: {error}") from error
        del arguments
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
        for slot in step.releases:
            environment[slot] = None

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
                arguments.append(Argument(key, kernel.parameters[key], (constant,)))
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
            arguments.append(Argument(key, kind, sources))
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
        Argument("indices", "tensor", (raw,)),
        Argument("lut", "tensor", (lut,)),
        Argument("shape", "attribute", (shape,)),
    ]
