"""Small networks and files of adapters for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdbuild.stages import fuse

Tensors = dict[str, torch.Tensor]


def weights(folder: Path) -> Tensors:
    """A component's tensors."""
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def save(folder: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None, name: str = "mine") -> Path:
    """A folder with one file."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(kept, folder / f"{name}.safetensors", metadata)
    return folder


def fused(source: Path, component: str, lora: Path, out: Path, weight: str = "1") -> Tensors:
    """The component's tensors after the fuse stage, of a folder with its files and one with the LoRA's."""
    out.mkdir(parents=True)
    inputs = {"checkpoint": source, "lora-1": lora}
    fuse.run(inputs, {"component": component, "weights": {"lora-1": weight}}, out, lambda _, __: None)
    return weights(out)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Small numbers."""
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
