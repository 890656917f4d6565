"""What a way to make weights smaller says of itself, and one choice of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

Spelling = int | str
"""What a recipe writes under `quantization`."""

GENERATIONS: Mapping[str, int] = {"iOS16": 16, "iOS17": 17, "iOS18": 18}
"""Deployment targets under their normalised names → the systems' generation."""


@dataclass(frozen=True)
class Compression(ABC):
    """How the weights of one model are made smaller: a method, and what was chosen of it.

    A subclass is a method. It has a module in `sdbuild.coreml.compressors`, called as the method is, with a function
    `compress(compression, package, out, progress)` that returns a `CompressionReport`.

    Attributes:
        method: its name in key documents and in `bundle.json`.
        documentation: what recipes write for it, and what that is.
        bits: for each weight.
    """

    method: ClassVar[str]
    documentation: ClassVar[str]

    bits: int

    @classmethod
    @abstractmethod
    def choices(cls) -> Mapping[Spelling, Compression]:
        """What recipes may write, and what each means, in the order in which documentation tells them."""

    @property
    @abstractmethod
    def oldest_generation(self) -> int:
        """The oldest system that can hold it, as `GENERATIONS` counts them."""

    @property
    @abstractmethod
    def least_signal(self) -> float:
        """What verification asks for where a recipe states no gate, in dB of PSNR."""

    @property
    def group_size(self) -> int | None:
        """Output channels that share a look-up table; None where there are no such groups."""
        return None

    def in_groups(self, size: int) -> Compression | None:
        """The same with groups of output channels; None for a method without look-up tables."""
        return None

    def stored_bytes(self, weights: int) -> int:
        """About how much so many weights take; tables and scales are not counted."""
        return weights * self.bits // 8
