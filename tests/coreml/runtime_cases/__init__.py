"""Uses of operations for the runtime's tests: what is fed, what is fixed, and what must come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb  # noqa: N813

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def uniform(*shape: int, low: float = 0.1, high: float = 0.9) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """One use of an operation.

    `fed` are inputs of the program, `fixed` constants. `expected` computes the result from both; without it coremltools
    evaluates the operation on constants.
    """

    operation: str
    fed: dict[str, Any]
    fixed: dict[str, Any] = field(default_factory=dict)
    expected: Callable[..., Any] | None = None
    since: str = "iOS16"

    def build(self, values: dict[str, Any]) -> Any:
        return getattr(mb, self.operation)(**values, **self.fixed)


def t(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x)
