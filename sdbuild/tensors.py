"""What the torch side and the Core ML side both say: how a tensor looks, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

TensorDtype = Literal["float16", "float32", "int32"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a component's model.

    Attributes:
        name: the feature name that the Swift package reads or feeds.
        shape: the static shape, outermost dimension first.
        dtype: the element type that a float16 package declares; a float32 package declares every
            floating-point input and output as float32.
        description: one sentence for the model's metadata, with units and value range.
    """

    name: str
    shape: tuple[int, ...]
    dtype: TensorDtype
    description: str = ""


class Weight(Protocol):
    """A stored tensor that is read only when its bytes are wanted."""

    @property
    def name(self) -> str:
        """The tensor's name in the checkpoint, for error messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the module's parameter has (after any reshape of the stored tensor)."""

    @property
    def dtype(self) -> str:
        """The stored element type: ``float16``, ``bfloat16``, ``float32``, ``float64`` or ``int64``."""

    def read(self) -> NDArray[np.generic]:
        """The values with `shape`: a memory-mapped view, or float32 for bfloat16, which NumPy does not have."""

    def done(self) -> None:
        """Tell the operating system that the pages behind this weight are no longer needed."""
