"""A program's operations as steps: what they read and write, in which order they run, when results can be dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sdbuild.coreml.order import in_order_of_demand
from sdbuild.coreml.runtime.constants import Constant
from sdbuild.coreml.runtime.kernels import Kernel
from sdbuild.coreml.runtime.types import MilType

Environment = list[Tensor | None]
Source = int | Constant
"""Where an argument comes from: a slot of the environment, or a constant."""


@dataclass(frozen=True)
class Argument:
    """One named input of an operation, bound to what supplies it.

    Attributes:
        name: the input's name.
        kind: ``tensor``, ``tensors``, ``attribute`` or ``attributes``, as the kernel declares.
        sources: one source, or one for each value of a tuple input.
    """

    name: str
    kind: str
    sources: tuple[Source, ...]


@dataclass
class Step:
    """One operation, ready to run.

    Attributes:
        operation: its type.
        kernel: what computes it.
        arguments: its inputs in the kernel's order.
        outputs: the slots of its results, with their `names` and declared `types`.
        static: arguments that never change.
        dynamic: arguments that are fetched when the step runs.
        releases: slots that nothing reads after this step.
    """

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

    def source(self, name: str) -> Source | None:
        """What supplies an input; None where it is left out."""
        return next((argument.sources[0] for argument in self.arguments if argument.name == name), None)


def scheduled(steps: Sequence[Step], wanted: Sequence[int]) -> list[Step]:
    """The steps that the wanted slots need, in an order that keeps few results alive, ready to run."""
    ordered = in_order_of_demand(steps, lambda step: step.slots, lambda step: step.outputs, wanted)
    _plan_releases(ordered, set(wanted))
    for step in ordered:
        _bind(step)
    return ordered


def fetch(source: Source, environment: Environment) -> Tensor:
    """The tensor that a source stands for."""
    if isinstance(source, Constant):
        return source.tensor()
    value = environment[source]
    assert value is not None
    return value


def _plan_releases(steps: Sequence[Step], keep: set[int]) -> None:
    """Let each step drop the results that nothing after it reads."""
    seen = set(keep)
    for step in reversed(steps):
        for slot in dict.fromkeys([*step.slots, *step.outputs]):
            if slot not in seen:
                seen.add(slot)
                step.releases.append(slot)


def _bind(step: Step) -> None:
    """Turn a step's arguments into fixed values and into functions of the environment."""
    for argument in step.arguments:
        sources = argument.sources
        if argument.kind in ("attribute", "attributes"):
            several = argument.kind == "attributes"
            if all(isinstance(source, Constant) for source in sources):
                values = [source.value() for source in sources if isinstance(source, Constant)]
                step.static[argument.name] = values if several else values[0]
            else:
                step.dynamic.append((argument.name, _attribute(sources, several)))
        elif argument.kind == "tensors":
            step.dynamic.append((argument.name, _tensors(sources)))
        elif step.kernel.stored and isinstance(sources[0], Constant):
            step.dynamic.append((argument.name, _stored(sources[0])))
        else:
            step.dynamic.append((argument.name, _tensor(sources[0])))


def _tensor(source: Source) -> Callable[[Environment], Tensor]:
    return lambda environment: fetch(source, environment)


def _stored(source: Constant) -> Callable[[Environment], Tensor]:
    return lambda environment: source.stored()


def _tensors(sources: tuple[Source, ...]) -> Callable[[Environment], list[Tensor]]:
    return lambda environment: [fetch(source, environment) for source in sources]


def _attribute(sources: tuple[Source, ...], several: bool) -> Callable[[Environment], Any]:
    def values(environment: Environment) -> Any:
        found = [fetch(source, environment).tolist() for source in sources]
        return found if several else found[0]

    return values
