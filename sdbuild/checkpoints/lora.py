"""LoRA files: which weight each low-rank pair changes, and the sums, one tensor at a time.

A LoRA (Hu et al. 2021) stores for a weight W two thin matrices; the adapted weight is W + s·(α/r)·(up·down), with the
rank r, the file's α (r where it says none) and the recipe's weight s. Pairs are found under the names that trainers
write: diffusers and peft (`unet.down_blocks…lora_A.weight`), diffusers' attention processors (`…processor.to_q_lora…`),
and kohya's (`lora_unet_down_blocks_0_…`, `lora_te_…`), for SDXL also with the original code's block names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.checkpoints.checkpoint import STORAGE_TYPES, StoredTensor, read_metadata, read_pickle, read_safetensors
from sdbuild.checkpoints.single_file_tensors import diffusers_module
from sdbuild.models.errors import ModelError

# Component → the prefixes of its modules, in the dialects with dots and in the one with underscores.
_DOTTED = {"unet": "unet.", "text_encoder": "text_encoder.", "text_encoder_2": "text_encoder_2."}
_FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_DOWN = re.compile(r"(?P<module>.+?)[._](?:lora_A(?:\.default)?|lora_down|lora\.down|lora_linear_layer\.down)\.weight")
_UP = re.compile(r"(?P<module>.+?)[._](?:lora_B(?:\.default)?|lora_up|lora\.up|lora_linear_layer\.up)\.weight")
_ALPHA = re.compile(r"(?P<module>.+?)\.alpha")
_UNSUPPORTED = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "lora_mid.weight": "LoCon with a middle tensor",
    "oft_blocks": "OFT",
    "diff": "full differences",
    "diff_b": "full differences",
}
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class Pair:
    """What one LoRA adds to one weight.

    Attributes:
        down: (r, in, …).
        up: (out, r, …).
        scale: what up·down is multiplied by.
    """

    down: StoredTensor
    up: StoredTensor
    scale: float

    def delta(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The difference for a weight of `shape`.

        In float64, in which products and sums of half-precision factors are exact: the order of the summation, and so
        the machine, makes no difference.
        """
        rank = self.down.shape[0]
        up = np.asarray(self.up.read(), np.float64).reshape(-1, rank)
        down = np.asarray(self.down.read(), np.float64).reshape(rank, -1)
        return (self.scale * (up @ down)).reshape(shape)


@dataclass(frozen=True)
class FusedTensor:
    """A stored tensor with LoRAs added when it is read; implements `sdbuild.tensors.Weight`."""

    base: StoredTensor
    pairs: tuple[Pair, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The stored tensor's name."""
        return self.base.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The stored tensor's shape."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The stored tensor's type; float32 where that is bfloat16, which would lose most of the sum."""
        return "float32" if self.base.dtype == "bfloat16" else self.base.dtype

    def read(self) -> NDArray[np.generic]:
        """The sum, rounded once."""
        total = np.asarray(self.base.read(), np.float64)
        for pair in self.pairs:
            total = total + pair.delta(self.shape)
        return total.astype(STORAGE_TYPES[self.dtype])

    def done(self) -> None:
        """Give the stored tensor's pages back."""
        self.base.done()


class Lora:
    """One LoRA file.

    Args:
        path: `.safetensors`, or a pickle, of which tensors alone are read.
        weight: what the recipe multiplies it with.
        label: what messages call it.

    Raises:
        ModelError: the file is damaged, or is no LoRA that can be fused.
    """

    def __init__(self, path: Path, weight: float, label: str) -> None:
        self.label = label
        self.weight = weight
        safe = path.suffix == ".safetensors"
        self._tensors = read_safetensors(path) if safe else read_pickle(path)
        self._settings = _settings(read_metadata(path) if safe else {})
        self._modules = self._find_modules()

    def pairs(self, component: str, tensors: Mapping[str, StoredTensor]) -> dict[str, Pair]:
        """Weight of the component → what is added to it.

        Args:
            component: `unet`, `text_encoder` or `text_encoder_2`.
            tensors: the component's tensors by their names in diffusers' layout.

        Raises:
            ModelError: a pair belongs to no weight of the component, or to one of another shape.
        """
        places = _Places(component, tensors)
        found: dict[str, Pair] = {}
        strange: list[str] = []
        for module, (down, up) in self._modules.items():
            owner, inner = _owner(module)
            if owner != component:
                continue
            name = places.find(inner)
            if name is None:
                strange.append(module)
                continue
            shape = tensors[name].shape
            if down.shape[0] * shape[0] != prod(up.shape) or prod(down.shape[1:]) != prod(shape[1:]):
                raise ModelError(
                    f"{self.label}: {module} has {up.shape} × {down.shape}, and {component}'s {name} is {shape}. "
                    "The LoRA was trained for another family."
                )
            found[name] = Pair(down, up, self.weight * self._scale(module, component, inner, down.shape[0]))
        if strange:
            raise ModelError(
                f"{self.label}: {component} has no {', '.join(sorted(strange)[:4])}"
                f"{' and more' if len(strange) > 4 else ''}. The LoRA was trained for another family."
            )
        return found

    def _find_modules(self) -> dict[str, tuple[StoredTensor, StoredTensor]]:
        """Module, as the file calls it → the pair."""
        downs: dict[str, StoredTensor] = {}
        ups: dict[str, StoredTensor] = {}
        for name, tensor in self._tensors.items():
            for suffix, kind in _UNSUPPORTED.items():
                if name.endswith(f".{suffix}"):
                    raise ModelError(f"{self.label}: {kind} ({name}) cannot be fused. Give a plain LoRA.")
            if match := _DOWN.fullmatch(name):
                downs[match["module"]] = tensor
            elif match := _UP.fullmatch(name):
                ups[match["module"]] = tensor
            elif not _ALPHA.fullmatch(name):
                raise ModelError(f"{self.label}: {name} is nothing that a LoRA holds. Give a plain LoRA.")
        if not downs or downs.keys() != ups.keys():
            lonely = sorted(downs.keys() ^ ups.keys())
            what = f"{lonely[0]} has half a pair" if lonely else "no pair of low-rank tensors"
            raise ModelError(f"{self.label}: {what}. Download it again, or give a plain LoRA.")
        return {module: (downs[module], ups[module]) for module in downs}

    def _scale(self, module: str, component: str, inner: str, rank: int) -> float:
        """α/r, by the tensor beside the pair, else by the file's settings, else 1."""
        if (alpha := self._tensors.get(f"{module}.alpha")) is not None:
            return float(alpha.read()) / rank
        settings = self._settings.get(component, self._settings.get("", {}))
        stated = settings.get("lora_alpha")
        for pattern, value in (settings.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", inner):
                stated = value
        if stated is None:
            return 1.0
        return float(stated) / (sqrt(rank) if settings.get("use_rslora") else rank)


def fuse(
    component: str, tensors: Mapping[str, StoredTensor], loras: Iterable[Lora]
) -> dict[str, StoredTensor | FusedTensor]:
    """A component's tensors with every LoRA added, in the order of `loras`."""
    pairs: dict[str, list[Pair]] = {}
    for lora in loras:
        for name, pair in lora.pairs(component, tensors).items():
            pairs.setdefault(name, []).append(pair)
    return {
        name: FusedTensor(tensor, tuple(pairs[name])) if name in pairs else tensor for name, tensor in tensors.items()
    }


class _Places:
    """The weights of a component under each name by which a LoRA may know their modules."""

    def __init__(self, component: str, tensors: Mapping[str, StoredTensor]) -> None:
        self._unet = component == "unet"
        self._modules: dict[str, str] = {}
        for name in tensors:
            module, _, kind = name.rpartition(".")
            if kind != "weight":
                continue
            # Towers are saved with and without a prefix, and so are LoRAs of them.
            bare = module if self._unet else module.removeprefix("text_model.")
            for known in (bare, module if self._unet else f"text_model.{bare}"):
                self._modules[known] = self._modules[known.replace(".", "_")] = name
        levels = [int(match[1]) for name in tensors if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))]
        self._layers = 1 + max(levels, default=0)

    def find(self, module: str) -> str | None:
        """The weight that a module's pair belongs to."""
        for candidate in (module, module.replace(".processor.", "."), self._translated(module)):
            # Attention processors say `to_out`, for the first of the list that it is.
            for known in (candidate, f"{candidate}.0", f"{candidate}_0"):
                if known in self._modules:
                    return self._modules[known]
        return None

    def _translated(self, module: str) -> str:
        """A name of another code as diffusers' or transformers'."""
        if self._unet:
            return diffusers_module(module.replace(".", "_"), self._layers, "_") or module
        # Early diffusers called all projections as those of its own attention.
        return re.sub(r"to_(q|k|v|out)$", r"\1_proj", module)


def _owner(module: str) -> tuple[str, str]:
    """The component that a module belongs to, and its name there; attention processors were the UNet's alone."""
    module = module.removeprefix("base_model.model.")
    for prefix, component in _FLAT.items():
        if module.startswith(prefix):
            return component, module.removeprefix(prefix)
    for component, prefix in _DOTTED.items():
        if module.startswith(prefix):
            return component, module.removeprefix(prefix)
    return "unet", module


def _settings(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The settings that diffusers writes beside the tensors, by component; `""` for a file of one component."""
    try:
        flat = json.loads(metadata.get(_METADATA, "{}"))
    except ValueError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        component, _, name = key.rpartition(".")
        found.setdefault(component, {})[name] = value
    return found
