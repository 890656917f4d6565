"""Adapters that multiply a weight: orthogonal rotations of its outputs, and factors of its rows or columns.

Sources: Qiu et al. 2023 (OFT) and Liu et al. 2023 (BOFT), as LyCORIS's `DiagOFTModule` and `ButterflyOFTModule` write
them; Liu et al. 2022, (IA)³, as LyCORIS's `IA3Module` and peft's `ia3_l` write it. The arithmetic is float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

import numpy as np

from sdbuild.checkpoints.checkpoint import StoredTensor
from sdbuild.checkpoints.lora.changes import Floats, Parts, Shape, floats


def cayley(blocks: Floats, bound: float) -> Floats:
    """Rotations from blocks of free parameters: (1 + Q)(1 − Q)⁻¹ of Q = B − Bᵀ, with ‖Q‖ at most `bound`; 0 is none."""
    skew = blocks - blocks.swapaxes(-1, -2)
    if bound > 0 and (length := np.sqrt(np.square(skew).sum()) + 1e-8) > bound:
        skew = skew * (bound / length)
    one = np.eye(blocks.shape[-1])
    rotations: Floats = (one + skew) @ np.linalg.inv(one - skew)
    return rotations


@dataclass(frozen=True)
class Rotation:
    """OFT: blocks of neighbouring outputs, each rotated; BOFT: several such rotations of interleaved outputs.

    Attributes:
        parts: `oft_blocks`, (blocks, size, size) or (factors, blocks, size, size), and maybe `rescale`.
        scale: α, which bounds the rotation: times the outputs, ‖Q‖ is at most that; 0 bounds nothing.
        strength: the recipe's weight.
    """

    kind: ClassVar[str] = "OFT"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"oft_blocks"}),)
    optional: ClassVar[frozenset[str]] = frozenset({"rescale"})

    parts: Parts = field(repr=False)
    scale: float
    strength: float

    def fits(self, shape: Shape) -> bool:
        """Whether the blocks cover the outputs."""
        *_, count, size, other = self.parts["oft_blocks"].shape
        rescale = self.parts.get("rescale")
        return count * size == shape[0] and size == other and (rescale is None or prod(rescale.shape) == shape[0])

    def apply(self, weight: Floats) -> Floats:
        """s·R + (1 − s) of the identity, applied to the outputs; then each output's own factor, whatever s is."""
        outputs = weight.shape[0]
        blocks = floats(self.parts["oft_blocks"])
        rotations = self.strength * cayley(blocks, self.scale * outputs)
        rotations = rotations + (1 - self.strength) * np.eye(blocks.shape[-1])
        flat = weight.reshape(outputs, -1)
        if blocks.ndim == 3:
            count, size, _ = blocks.shape
            turned = np.einsum("bij,bif->bjf", rotations, flat.reshape(count, size, -1))
        else:
            turned = self._butterfly(rotations, flat)
        turned = turned.reshape(weight.shape)
        if (rescale := self.parts.get("rescale")) is not None:
            turned = turned * floats(rescale).reshape(-1, *[1] * (weight.ndim - 1))
        result: Floats = turned
        return result

    @staticmethod
    def _butterfly(rotations: Floats, flat: Floats) -> Floats:
        """One factor after the other; before the i-th, halves of blocks that lie 2ⁱ half blocks apart come together."""
        half = rotations.shape[-1] // 2
        for index, factor in enumerate(rotations):
            near = 2**index * half
            columns = flat.shape[1]
            together = flat.reshape(-1, 2, near, columns).swapaxes(1, 2).reshape(-1, rotations.shape[-1], columns)
            turned = np.einsum("bij,bjf->bif", factor, together)
            flat = turned.reshape(-1, near, 2, columns).swapaxes(1, 2).reshape(flat.shape)
        return flat


@dataclass(frozen=True)
class Scaling:
    """(IA)³: each output, or each input, times a factor.

    Attributes:
        parts: peft's `ia3`, the factors themselves; or LyCORIS's `weight`, what they have above 1, with `on_input`.
        strength: the recipe's weight.
        of_inputs: whether the factors are the inputs'.
    """

    kind: ClassVar[str] = "(IA)³"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"ia3"}), frozenset({"weight", "on_input"}))
    optional: ClassVar[frozenset[str]] = frozenset()

    parts: Parts = field(repr=False)
    strength: float
    of_inputs: bool

    @property
    def _tensor(self) -> StoredTensor:
        return self.parts["ia3"] if "ia3" in self.parts else self.parts["weight"]

    def fits(self, shape: Shape) -> bool:
        """Whether there are as many factors as outputs or inputs."""
        return prod(self._tensor.shape) == shape[1 if self.of_inputs else 0]

    def apply(self, weight: Floats) -> Floats:
        """W · (1 + s·(l − 1))."""
        axis = 1 if self.of_inputs else 0
        above = floats(self._tensor).reshape(-1) - (1.0 if "ia3" in self.parts else 0.0)
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        result: Floats = weight * (1 + self.strength * above).reshape(shape)
        return result
