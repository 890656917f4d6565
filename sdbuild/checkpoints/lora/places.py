"""Which stored weight a module of a LoRA means, also where another code has one weight for several of ours.

The original code of SD 3 has queries, keys and values as one matrix, and so has OpenCLIP; the original order of shift
and scale in the last norm of SD 3 is the other one. A place is therefore a list of rows of stored weights, which
together are the weight that the LoRA was trained on. The correspondence of names is that of diffusers'
`convert_sd3_to_diffusers.py` and of `sdbuild.checkpoints.single_file_tensors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sdbuild.checkpoints.single_file_tensors import diffusers_module


class Shaped(Protocol):
    """What has a shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...


@dataclass(frozen=True)
class Rows:
    """Some rows of a stored weight.

    Attributes:
        name: the tensor's.
        start: the first row.
        stop: the row after the last one.
    """

    name: str
    start: int
    stop: int


Place = tuple[Rows, ...]


def shape_of(place: Place, tensors: Mapping[str, Shaped]) -> tuple[int, ...] | None:
    """The shape of the weight that the rows are together; None where they do not fit each other."""
    rest = {tensors[rows.name].shape[1:] for rows in place}
    return (sum(rows.stop - rows.start for rows in place), *rest.pop()) if len(rest) == 1 else None


_MMDIT_ENDS = {
    "context_embedder": "context_embedder",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_MMDIT_BLOCK = {
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
_MMDIT_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_OPEN_CLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


class Places:
    """The weights and biases of a component under each name by which a file may know their modules.

    Args:
        component: `unet`, `transformer` or a text encoder.
        tensors: the component's tensors by their names in diffusers' layout.
    """

    def __init__(self, component: str, tensors: Mapping[str, Shaped]) -> None:
        self._unet, self._transformer = component == "unet", component == "transformer"
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._modules: dict[str, str] = {}
        for name in tensors:
            module, _, kind = name.rpartition(".")
            if kind not in ("weight", "bias"):
                continue
            # Towers are saved with and without a prefix, and so are LoRAs of them.
            bare = module.removeprefix("text_model.")
            for known in {module, bare, f"text_model.{bare}"} if component.startswith("text") else {module}:
                self._modules[known] = self._modules[known.replace(".", "_")] = module
        levels = [int(match[1]) for name in tensors if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))]
        self._layers = 1 + max(levels, default=0)
        blocks = [int(match[1]) for name in tensors if (match := re.match(r"transformer_blocks\.(\d+)\.", name))]
        self._last = max(blocks, default=0)

    def find(self, module: str, kind: str = "weight") -> Place | None:
        """The rows that are a module's weight or bias; None where the component has no such module."""
        names = self._names(module)
        if names is None or any(f"{name}.{kind}" not in self._shapes for name in names):
            return None
        rows = [self._whole(f"{name}.{kind}") for name in names]
        if self._transformer and self._is_swapped(module, names):
            (whole,) = rows
            half = whole.stop // 2
            rows = [Rows(whole.name, half, whole.stop), Rows(whole.name, 0, half)]
        return tuple(rows)

    def _whole(self, name: str) -> Rows:
        return Rows(name, 0, (self._shapes[name] or (1,))[0])

    def _names(self, module: str) -> list[str] | None:
        """The modules here that are one module there."""
        if (found := self._known(module)) is not None:
            return [found]
        if self._transformer:
            return self._of_mmdit(module)
        if self._unet:
            found = self._known(diffusers_module(module.replace(".", "_"), self._layers, "_") or module)
            return [found] if found is not None else None
        return self._of_tower(module)

    def _known(self, module: str) -> str | None:
        for candidate in (module, module.replace(".processor.", "."), module.replace("_processor_", "_")):
            # Attention processors say `to_out`, for the first of the list that it is.
            for known in (candidate, f"{candidate}.0", f"{candidate}_0"):
                if known in self._modules:
                    return self._modules[known]
        return None

    def _of_mmdit(self, module: str) -> list[str] | None:
        flat = module.replace(".", "_")
        for old, new in _MMDIT_ENDS.items():
            if flat == old.replace(".", "_"):
                return [new]
        match = re.fullmatch(r"joint_blocks_(\d+)_(.+)", flat)
        if match is None:
            return None
        block = f"transformer_blocks.{match[1]}"
        for old, new in _MMDIT_BLOCK.items():
            if match[2] == old.replace(".", "_"):
                return [f"{block}.{new}"]
        for old, several in _MMDIT_FUSED.items():
            inner = old.replace(".", "_")
            if match[2] == inner:
                return [f"{block}.{new}" for new in several]
            # The Open Model Initiative counts the three.
            if re.fullmatch(rf"{inner}_[012]", match[2]):
                return [f"{block}.{several[int(match[2][-1])]}"]
        return None

    def _is_swapped(self, module: str, names: list[str]) -> bool:
        """Whether the original has shift and scale where diffusers has scale and shift: in the last norms alone."""
        if module.replace(".", "_").startswith(("joint_blocks", "final_layer")):
            return names[0] in ("norm_out.linear", f"transformer_blocks.{self._last}.norm1_context.linear")
        return False

    def _of_tower(self, module: str) -> list[str] | None:
        # Early diffusers called all projections as those of its own attention.
        early = re.sub(r"to_(q|k|v|out)$", r"\1_proj", module)
        if (found := self._known(early)) is not None:
            return [found]
        match = re.fullmatch(r"transformer_resblocks_(\d+)_(.+)", module.replace(".", "_"))
        if match is None:
            return None
        layer = f"encoder.layers.{match[1]}"
        if match[2] == "attn_in_proj":
            names = [self._known(f"{layer}.self_attn.{letter}_proj") for letter in "qkv"]
        else:
            inner = {old.replace(".", "_"): new for old, new in _OPEN_CLIP.items()}.get(match[2], "")
            names = [self._known(f"{layer}.{inner}")]
        return [name for name in names if name is not None] if None not in names else None
