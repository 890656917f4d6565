"""What an adapter makes of one weight: kinds that add a difference, and what follows from the weight itself.

Sources of the formulas, by kind:

- LoRA: Hu et al. 2021; for convolutions with a core between the factors (LoCon, Tucker's form) LyCORIS's
  `tucker_weight_from_conv`; DoRA: Liu et al. 2024, as peft's `DoraLinearLayer` and `DoraConv2dLayer` compute it.
- LoHa: Hyeon-Woo et al. 2022 (FedPara); LoKr: Yeh et al. 2023; both as LyCORIS's modules write them.
- GLoRA: Chavan et al. 2023, as LyCORIS's and, for its first layout, ComfyUI's `weight_adapter/glora.py`.
- full differences of weights, biases and norms: LyCORIS's `FullModule` and `NormModule`.

All arithmetic is float64, in which products and sums of half-precision factors are exact: the order of a summation, and
so the machine, makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.checkpoint import StoredTensor

Floats = NDArray[np.float64]
Parts = Mapping[str, StoredTensor]
Shape = tuple[int, ...]


class Change(Protocol):
    """One adapter's change of one weight."""

    kind: ClassVar[str]

    def fits(self, shape: Shape) -> bool:
        """Whether it can change a weight of that shape."""
        ...

    def apply(self, weight: Floats) -> Floats:
        """The changed weight."""
        ...


def floats(tensor: StoredTensor) -> Floats:
    """A tensor's values, exactly."""
    values: Floats = np.asarray(tensor.read(), np.float64)
    tensor.done()
    return values


def matrix(tensor: StoredTensor) -> Floats:
    """A factor as a matrix: what is behind its first dimension is one."""
    values: Floats = floats(tensor).reshape(tensor.shape[0], -1)
    return values


@dataclass(frozen=True)
class Added:
    """A difference that does not depend on the weight, with or without DoRA's magnitude.

    Attributes:
        parts: the file's tensors.
        scale: α/r and what else the file says, without the recipe's weight.
        strength: the recipe's weight.
        magnitude: DoRA's lengths of the weight's rows, or of its columns; None without.
        along_rows: whether `magnitude` has one for each output.
    """

    kind: ClassVar[str] = ""
    required: ClassVar[tuple[frozenset[str], ...]] = ()
    optional: ClassVar[frozenset[str]] = frozenset()

    parts: Parts = field(repr=False)
    scale: float
    strength: float
    magnitude: StoredTensor | None = None
    along_rows: bool = True

    def size(self) -> tuple[int, int]:
        """Outputs, and all else of the difference."""
        raise NotImplementedError

    def difference(self, shape: Shape) -> Floats:
        """The difference for a weight of that shape, without any factor."""
        raise NotImplementedError

    def fits(self, shape: Shape) -> bool:
        """Whether the difference has as many rows and columns."""
        if self.magnitude is not None and prod(self.magnitude.shape) != shape[0 if self.along_rows else 1]:
            return False
        return self.size() == (shape[0], prod(shape[1:]))

    def apply(self, weight: Floats) -> Floats:
        """The sum; with a magnitude its rows have that length: m · (W + sΔ) / ‖W + sΔ‖."""
        difference = self.difference(weight.shape).reshape(weight.shape)
        total: Floats = weight + self.strength * self.scale * difference
        if self.magnitude is None:
            return total
        axis = 0 if self.along_rows else 1
        others = tuple(index for index in range(total.ndim) if index != axis)
        length = np.sqrt(np.square(total).sum(axis=others, keepdims=True))
        result: Floats = total * (floats(self.magnitude).reshape(length.shape) / length)
        return result


@dataclass(frozen=True)
class LowRank(Added):
    """LoRA: up · down, for convolutions with or without a core between them."""

    kind: ClassVar[str] = "LoRA"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"down", "up"}),)
    optional: ClassVar[frozenset[str]] = frozenset({"mid"})

    def size(self) -> tuple[int, int]:
        """Rows of up, and columns of down times the core's points."""
        down, up, mid = self.parts["down"], self.parts["up"], self.parts.get("mid")
        if prod(up.shape[1:]) != (down if mid is None else mid).shape[0]:
            return 0, 0
        if mid is None:
            return up.shape[0], prod(down.shape[1:])
        return (up.shape[0], prod(down.shape[1:]) * prod(mid.shape[2:])) if mid.shape[1] == down.shape[0] else (0, 0)

    def difference(self, shape: Shape) -> Floats:
        """Up · down; with a core Σ up[o, a] · mid[a, b, …] · down[b, i]."""
        down, up = matrix(self.parts["down"]), matrix(self.parts["up"])
        if "mid" not in self.parts:
            whole: Floats = up @ down
            return whole
        product: Floats = np.einsum("oa,ab...,bi->oi...", up, floats(self.parts["mid"]), down)
        return product


@dataclass(frozen=True)
class EmbeddingLowRank(Added):
    """peft's LoRA of a token embedding: (up · down) transposed."""

    kind: ClassVar[str] = "LoRA of an embedding"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"embedding_down", "embedding_up"}),)

    def size(self) -> tuple[int, int]:
        """Tokens and width."""
        return self.parts["embedding_down"].shape[1], self.parts["embedding_up"].shape[0]

    def difference(self, shape: Shape) -> Floats:
        """(up · down)ᵀ."""
        return (matrix(self.parts["embedding_up"]) @ matrix(self.parts["embedding_down"])).T


@dataclass(frozen=True)
class Hadamard(Added):
    """LoHa: the product, number by number, of two low-rank matrices."""

    kind: ClassVar[str] = "LoHa"
    required: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
    )

    def size(self) -> tuple[int, int]:
        """Outputs and inputs times the core's points; in Tucker's form the first factor stands transposed."""
        first, second, core = self.parts["hada_w1_a"], self.parts["hada_w1_b"], self.parts.get("hada_t1")
        if core is None:
            return first.shape[0], prod(second.shape[1:])
        return first.shape[1], second.shape[1] * prod(core.shape[2:])

    def difference(self, shape: Shape) -> Floats:
        """(w1_a · w1_b) ∘ (w2_a · w2_b), each around its core where there is one."""
        product: Floats = self._factor("1") * self._factor("2")
        return product

    def _factor(self, number: str) -> Floats:
        first, second = floats(self.parts[f"hada_w{number}_a"]), floats(self.parts[f"hada_w{number}_b"])
        if (core := self.parts.get(f"hada_t{number}")) is None:
            return first @ second.reshape(second.shape[0], -1)
        return around_core(floats(core), first, second)


@dataclass(frozen=True)
class Kronecker(Added):
    """LoKr: the Kronecker product of a small and a larger matrix, either whole or of low rank."""

    kind: ClassVar[str] = "LoKr"
    required: ClassVar[tuple[frozenset[str], ...]] = tuple(
        frozenset({*first, *second})
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (
            ("lokr_w2",),
            ("lokr_w2_a", "lokr_w2_b"),
            ("lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        )
    )

    def size(self) -> tuple[int, int]:
        """Rows and columns of both factors, multiplied."""
        (rows, columns), (more_rows, more_columns) = self._size("1"), self._size("2")
        return rows * more_rows, columns * more_columns

    def _size(self, number: str) -> tuple[int, int]:
        if whole := self.parts.get(f"lokr_w{number}"):
            return whole.shape[0], prod(whole.shape[1:])
        first, second = self.parts[f"lokr_w{number}_a"], self.parts[f"lokr_w{number}_b"]
        if core := self.parts.get(f"lokr_t{number}"):
            return first.shape[1], second.shape[1] * prod(core.shape[2:])
        return first.shape[0], prod(second.shape[1:])

    def difference(self, shape: Shape) -> Floats:
        """w1 ⊗ w2."""
        small, large = self._factor("1"), self._factor("2")
        if large.ndim == 2 and len(shape) > 2:
            # A factor of low rank has its kernel's points behind its columns.
            large = large.reshape(large.shape[0], shape[1] // small.shape[1], *shape[2:])
        small = small.reshape(*small.shape, *[1] * (large.ndim - small.ndim))
        product: Floats = np.kron(small, large).astype(np.float64)
        return product

    def _factor(self, number: str) -> Floats:
        if whole := self.parts.get(f"lokr_w{number}"):
            return floats(whole)
        first, second = floats(self.parts[f"lokr_w{number}_a"]), floats(self.parts[f"lokr_w{number}_b"])
        if core := self.parts.get(f"lokr_t{number}"):
            return around_core(floats(core), first, second)
        return first @ second.reshape(second.shape[0], -1)


def around_core(core: Floats, first: Floats, second: Floats) -> Floats:
    """Tucker's form: Σ core[i, j, …] · first[i, o] · second[j, c], as (o, c, …)."""
    product: Floats = np.einsum("ij...,io,jc->oc...", core, first, second)
    return product


@dataclass(frozen=True)
class Difference(Added):
    """A weight's, a norm's or a bias's difference, written out."""

    kind: ClassVar[str] = "a full difference"
    required: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"difference"}),
        frozenset({"norm_difference"}),
        frozenset({"bias_difference"}),
        frozenset({"norm_bias_difference"}),
        frozenset({"up_bias"}),
    )

    @property
    def _only(self) -> StoredTensor:
        return next(iter(self.parts.values()))

    def size(self) -> tuple[int, int]:
        """The tensor's own."""
        shape = self._only.shape or (1,)
        return shape[0], prod(shape[1:])

    def difference(self, shape: Shape) -> Floats:
        """The tensor."""
        return floats(self._only)


@dataclass(frozen=True)
class Generalized(Added):
    """GLoRA without its vectors: W·A + B, both of low rank, where A stands for a change of the weight itself."""

    kind: ClassVar[str] = "GLoRA"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"a1", "a2", "b1", "b2"}),)
    optional: ClassVar[frozenset[str]] = frozenset({"bm"})

    @property
    def _is_first_layout(self) -> bool:
        """LyCORIS once wrote A as a2·a1 and B as b2·b1; the rank is the smaller side of each."""
        rows, rank = self.parts["a1"].shape[:2]
        return rows < rank

    def size(self) -> tuple[int, int]:
        """Outputs, and inputs times the kernel's points."""
        if self._is_first_layout:
            return self.parts["b2"].shape[0], prod(self.parts["b1"].shape[1:])
        core = self.parts.get("bm")
        points = prod(core.shape[2:]) if core is not None else 1
        return self.parts["b1"].shape[0], prod(self.parts["b2"].shape[1:]) * points

    def apply(self, weight: Floats) -> Floats:
        """W + s·(W·a1·a2 + b1·b2); over a convolution's inputs."""
        factors = {name: matrix(self.parts[name]) for name in ("a1", "a2", "b1", "b2")}
        a1, a2, b1, b2 = factors.values()
        if self._is_first_layout:
            a1, a2, b1, b2 = a2, a1, b2, b1
        if (core := self.parts.get("bm")) is not None:
            added = np.einsum("oa,ab...,bi->oi...", b1, floats(core), b2)
        else:
            added = b1 @ b2
        turned = np.einsum("oi...,ij->oj...", weight, a1 @ a2)
        result: Floats = weight + self.strength * self.scale * (turned + added.reshape(weight.shape))
        return result


@dataclass(frozen=True)
class Replacement(Added):
    """A tensor that peft trained and saved whole (`modules_to_save`, `bias`): W + s·(V − W)."""

    kind: ClassVar[str] = "a replaced tensor"
    required: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"weight"}), frozenset({"bias"}))

    @property
    def _only(self) -> StoredTensor:
        return next(iter(self.parts.values()))

    def size(self) -> tuple[int, int]:
        """The tensor's own."""
        shape = self._only.shape or (1,)
        return shape[0], prod(shape[1:])

    def apply(self, weight: Floats) -> Floats:
        """The tensor itself for a recipe's weight of 1."""
        return weight + self.strength * (floats(self._only).reshape(weight.shape) - weight)


def rank_of(parts: Parts) -> int | None:
    """The rank that α is divided by; None where there is none, as in LoKr of two whole factors."""
    # The first that is there: LyCORIS divides by the second factor's where LoKr has two of low rank, and all are equal.
    for name, axis in _RANKS:
        if name in parts:
            return int(parts[name].shape[axis])
    return None


_RANKS: tuple[tuple[str, int], ...] = (
    ("down", 0),
    ("embedding_down", 0),
    ("hada_w1_b", 0),
    ("lokr_w2_b", 0),
    ("lokr_w1_b", 0),
)


def rank_of_generalized(parts: Parts) -> int:
    """GLoRA's rank, in either layout."""
    return min(parts["a1"].shape[:2])


def shapes_of(parts: Mapping[str, Any]) -> str:
    """The shapes of a change's tensors, for messages."""
    return " × ".join(str(tensor.shape) for tensor in parts.values())
