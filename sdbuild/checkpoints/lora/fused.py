"""A component's weights with LoRAs in them, computed one at a time when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.checkpoint import STORAGE_TYPES, StoredTensor
from sdbuild.checkpoints.lora.changes import Change, Floats, Shape
from sdbuild.checkpoints.lora.file import Lora
from sdbuild.checkpoints.lora.places import Place


class Exact(Protocol):
    """A weight's values before they are rounded."""

    @property
    def shape(self) -> Shape:
        """The weight's shape."""
        ...

    def exact(self) -> Floats:
        """The values in float64."""
        ...


@dataclass(frozen=True)
class Stored:
    """A weight as the checkpoint has it."""

    tensor: StoredTensor

    @property
    def shape(self) -> Shape:
        """The stored shape."""
        return self.tensor.shape

    def exact(self) -> Floats:
        """The stored values."""
        values: Floats = np.asarray(self.tensor.read(), np.float64)
        return values


@dataclass(frozen=True)
class Changed:
    """A weight after one change, of it alone or of a weight that it is a part of.

    Attributes:
        name: the tensor's.
        place: the rows that the change is of.
        before: the weights of `place`, by name, as they were.
        change: what happens to them.
    """

    name: str
    place: Place
    before: Mapping[str, Exact] = field(repr=False)
    change: Change = field(repr=False)

    @property
    def shape(self) -> Shape:
        """The same as before."""
        return self.before[self.name].shape

    def exact(self) -> Floats:
        """The changed values."""
        old = {name: weight.exact() for name, weight in self.before.items()}
        new = self.change.apply(np.concatenate([old[rows.name][rows.start : rows.stop] for rows in self.place]))
        values, start = old[self.name].copy(), 0
        for rows in self.place:
            count = rows.stop - rows.start
            if rows.name == self.name:
                values[rows.start : rows.stop] = new[start : start + count]
            start += count
        return values


@dataclass(frozen=True)
class FusedTensor:
    """A stored tensor with LoRAs in it; implements `sdbuild.tensors.Weight`."""

    base: StoredTensor
    weight: Exact = field(repr=False)

    @property
    def name(self) -> str:
        """The stored tensor's name."""
        return self.base.name

    @property
    def shape(self) -> Shape:
        """The stored tensor's shape."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The stored tensor's type; float32 where that is bfloat16, which would lose most of the sum."""
        return "float32" if self.base.dtype == "bfloat16" else self.base.dtype

    def read(self) -> NDArray[np.generic]:
        """The changed values, rounded once."""
        return self.weight.exact().astype(STORAGE_TYPES[self.dtype])

    def done(self) -> None:
        """Give the stored tensor's pages back."""
        self.base.done()


def fuse(
    component: str, tensors: Mapping[str, StoredTensor], loras: Iterable[Lora]
) -> dict[str, StoredTensor | FusedTensor]:
    """A component's tensors with every LoRA in them, one after the other in the order of `loras`.

    The order matters for kinds that multiply a weight or look at its length; differences are simply added.

    Raises:
        ModelError: a LoRA does not fit the component.
    """
    weights: dict[str, Exact] = {name: Stored(tensor) for name, tensor in tensors.items()}
    changed: set[str] = set()
    for lora in loras:
        before = dict(weights)
        for placed in lora.changes(component, tensors):
            names = dict.fromkeys(rows.name for rows in placed.place)
            for name in names:
                # Several changes of one LoRA may be of different rows of one weight.
                current = {other: before[other] for other in names} | {name: weights[name]}
                weights[name] = Changed(name, placed.place, current, placed.change)
            changed |= names.keys()
    return {name: FusedTensor(tensor, weights[name]) if name in changed else tensor for name, tensor in tensors.items()}
