"""Integers: each weight is a whole number of steps, with a step for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sdbuild.compression.method import Compression, Spelling


@dataclass(frozen=True)
class LinearIntegers(Compression):
    """Symmetric 8-bit integers with a scale for each output channel."""

    method: ClassVar[str] = "linear"
    documentation: ClassVar[str] = "`linear8` for 8-bit integers with a scale for each output channel"

    @classmethod
    def choices(cls) -> Mapping[Spelling, Compression]:
        """8 bits is all that there is."""
        return {"linear8": cls(8)}

    @property
    def oldest_generation(self) -> int:
        """Every system holds it: constexpr_affine_dequantize of iOS 16, constexpr_blockwise_shift_scale of iOS 18."""
        return 16

    @property
    def least_signal(self) -> float:
        """Like that of look-up tables: 6 dB below SDXL's UNet with random weights."""
        return 25.0
