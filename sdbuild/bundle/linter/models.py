"""Each model against its row of the contract, and the sizes of all models against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sdbuild.bundle.features import Feature, Interface
from sdbuild.bundle.linter.violation import Violation
from sdbuild.interface.contract import MEANINGS, Numbered, Port, Row, Size

_NUMBERS = ("float16", "float32", "float64", "int32")


@dataclass
class Sizes:
    """The letters of the contract and what they stand for in this bundle, each with the place that said so first."""

    values: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def get(self, letter: str) -> int | None:
        """A letter's number, or None when no model has it."""
        return self.values.get(letter)

    def bind(self, letter: str, value: int, where: str) -> Violation | None:
        """Take a letter's number from the first model that has it; a violation when a later one differs."""
        known = self.values.setdefault(letter, value)
        place = self.places.setdefault(letter, where)
        if known == value:
            return None
        return Violation("shape-agreement", where, f"{MEANINGS[letter]} {value}, but {known} in {place}")


def lint_model(name: str, interface: Interface, row: Row, sizes: Sizes) -> Iterator[Violation]:
    """One model against its row; its sizes are bound on the way.

    Args:
        name: the model's path in Resources, without suffix.
        interface: what the model takes and gives; of a pair of chunks, what the pair does.
        row: what the contract says.
        sizes: the letters that are known, to be extended.
    """
    inputs, outputs = list(interface.inputs), list(interface.outputs)
    if row.numbered is not None and row.numbered.side == "inputs":
        inputs = [feature for feature in inputs if not row.numbered.has(feature.name)]
    if row.any_input and len(inputs) != 1:
        yield Violation("single-input", name, f"{len(inputs)} inputs ({_names(inputs)}); there must be exactly one")
    elif row.any_input:
        yield from _lint_port(name, inputs[0], row.inputs[0], sizes)
    else:
        yield from _lint_named(name, inputs, row.inputs, sizes, "input")
        known = {port.name for port in row.inputs}
        for feature in inputs:
            if feature.name not in known:
                yield Violation(
                    "input-name", f"{name}, {feature.name}", f"never fed; inputs are {', '.join(sorted(known))}"
                )
    if row.any_output and len(outputs) != 1:
        yield Violation("single-output", name, f"{len(outputs)} outputs ({_names(outputs)}); there must be exactly one")
    elif row.any_output:
        yield from _lint_port(name, outputs[0], row.outputs[0], sizes)
    else:
        yield from _lint_named(name, outputs, row.outputs, sizes, "output")
    yield from _lint_types(name, interface)


def numbered(features: tuple[Feature, ...], which: Numbered) -> dict[str, tuple[int, ...]]:
    """The numbered tensors among inputs or outputs: name → shape."""
    return {feature.name: feature.shape for feature in features if which.has(feature.name)}


def lint_numbers(name: str, found: dict[str, tuple[int, ...]], word: str, rule: str) -> Iterator[Violation]:
    """Numbered tensors are numbered from 0 without a gap."""
    missing = [wanted for i in range(len(found)) if (wanted := f"{word}_{i}") not in found]
    if not found:
        yield Violation(rule, name, f"no {word}_0, {word}_1, …")
    elif missing:
        yield Violation(rule, name, f"{len(found)} {rule}, but {', '.join(missing)} missing")


def _lint_named(
    name: str, features: list[Feature], ports: tuple[Port, ...], sizes: Sizes, side: str
) -> Iterator[Violation]:
    present = {feature.name: feature for feature in features}
    for port in ports:
        if port.name in present:
            yield from _lint_port(name, present[port.name], port, sizes)
        elif not port.optional:
            rule = "input-name" if side == "input" else "output-name"
            yield Violation(rule, name, f"no {side} {port.name}; it has {_names(features) or 'none'}")


def _lint_port(name: str, feature: Feature, port: Port, sizes: Sizes) -> Iterator[Violation]:
    if port.shape is None:
        return
    where = f"{name}, {feature.name}"
    wanted = f"[{', '.join(map(_size, port.shape))}]"
    if len(feature.shape) != len(port.shape):
        yield Violation("shape", where, f"shape {list(feature.shape)}, must be {wanted}")
        return
    for axis, (size, meaning) in enumerate(zip(feature.shape, port.shape, strict=True)):
        if not isinstance(meaning, str):
            if size not in (meaning if isinstance(meaning, tuple) else (meaning,)):
                rule = "batch" if axis == 0 and meaning == 2 else "shape"
                yield Violation(rule, where, f"shape {list(feature.shape)}, must be {wanted}: axis {axis} is {size}")
        elif violation := sizes.bind(meaning, size, where):
            yield violation


def _size(size: Size) -> str:
    return " or ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _lint_types(name: str, interface: Interface) -> Iterator[Violation]:
    for feature in interface.inputs:
        if feature.dtype not in _NUMBERS:
            yield Violation(
                "input-type", f"{name}, {feature.name}", f"{feature.dtype}, must be one of {', '.join(_NUMBERS)}"
            )
    for feature in interface.outputs:
        if feature.dtype != "float32":
            yield Violation("output-type", f"{name}, {feature.name}", f"{feature.dtype}, must be float32")


def _names(features: list[Feature]) -> str:
    return ", ".join(feature.name for feature in features)
