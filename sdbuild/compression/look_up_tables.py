"""Look-up tables: each weight is the number of a value in a table of its tensor, or of a group of output channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from sdbuild.compression.method import GENERATIONS, Compression, Spelling

_WIDTHS = (1, 2, 3, 4, 6, 8)
_FROM_IOS_18 = (3,)  # up to iOS 17 indices are packed into bytes, from iOS 18 on there are types of every width
_LEAST_SIGNAL: Mapping[int, float] = {8: 30.0, 6: 20.0, 4: 10.0, 3: 6.0, 2: 2.0, 1: 0.0}
# What is left of the signal at each number of bits: 6 dB below SDXL's UNet with random weights, 26.5 dB at 6 bits.


@dataclass(frozen=True)
class LookUpTables(Compression):
    """Indices into tables of 2^bits values, found by exact k-means.

    Attributes:
        channels: output channels that share a table; None for one table a tensor.
    """

    method: ClassVar[str] = "palette"
    documentation: ClassVar[str] = "1, 2, 3, 4, 6 or 8 with look-up tables"

    channels: int | None = None

    @classmethod
    def choices(cls) -> Mapping[Spelling, Compression]:
        """A number of bits."""
        return {bits: cls(bits) for bits in _WIDTHS}

    @property
    def oldest_generation(self) -> int:
        """3 bits and groups of channels are for iOS 18 (coremltools, constexpr_lut_to_dense of iOS 16 and 18)."""
        return 18 if self.bits in _FROM_IOS_18 or self.channels is not None else 16

    @property
    def least_signal(self) -> float:
        """By the number of bits."""
        return _LEAST_SIGNAL[self.bits]

    @property
    def group_size(self) -> int | None:
        """Output channels that share a table."""
        return self.channels

    def in_groups(self, size: int) -> Compression:
        """The same with a table for every `size` output channels."""
        return replace(self, channels=size)


def widths(deployment_target: str) -> tuple[int, ...]:
    """The bits that a system's look-up tables hold, one table a tensor."""
    return tuple(b for b in _WIDTHS if LookUpTables(b).oldest_generation <= GENERATIONS[deployment_target])


LEAST_SIGNALS = _LEAST_SIGNAL
"""Bits → the least signal that verification accepts with them, in dB, for advice on what would pass."""
