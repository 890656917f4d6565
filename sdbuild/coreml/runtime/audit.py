"""What the values of a run look like: how large they get, and where half precision cannot hold them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class OperationAudit:
    """One operation's results over all audited runs.

    Attributes:
        name: the output's name.
        operation: the operation's type.
        element: the declared element type.
        largest: the largest magnitude before rounding; NaNs are left out, infinities are not.
        overflows: elements that are declared half and lie outside of ±65504.
        nans: elements that are not a number.
        elements: elements looked at.
    """

    name: str
    operation: str
    element: str
    largest: float = 0.0
    overflows: int = 0
    nans: int = 0
    elements: int = 0


@dataclass
class Audit:
    """Collects figures of every floating-point result; hand it to `Model.predict`, any number of times.

    Attributes:
        operations: the figures by output name, in the order of execution.
    """

    operations: dict[str, OperationAudit] = field(default_factory=dict)

    @property
    def overflows(self) -> int:
        """Elements that half precision cannot hold, over all operations."""
        return sum(entry.overflows for entry in self.operations.values())

    @property
    def nans(self) -> int:
        """Elements that are not a number, over all operations."""
        return sum(entry.nans for entry in self.operations.values())

    def faults(self) -> list[OperationAudit]:
        """The operations with overflows or NaNs, in the order of execution."""
        return [entry for entry in self.operations.values() if entry.overflows or entry.nans]

    def record(self, name: str, operation: str, element: str, value: Tensor) -> None:
        """Add one result, as it was before rounding."""
        entry = self.operations.get(name) or OperationAudit(name, operation, element)
        if value.numel() == 0:
            self.operations[name] = entry
            return
        low, high = (float(bound) for bound in torch.aminmax(value))
        largest = max(abs(low), abs(high))
        nans = overflows = 0
        if largest != largest:  # a NaN hides all other values from aminmax
            nans = int(torch.isnan(value).sum())
            magnitudes = torch.nan_to_num(value.abs(), nan=0.0, posinf=float("inf"))
            largest = float(magnitudes.max())
        if element == "fp16" and largest > LARGEST_HALF:
            overflows = int((value.abs() > LARGEST_HALF).sum())
        self.operations[name] = replace(
            entry,
            largest=max(entry.largest, largest),
            overflows=entry.overflows + overflows,
            nans=entry.nans + nans,
            elements=entry.elements + value.numel(),
        )
