"""T2I-Adapter (Mou et al. 2023): a picture becomes features that are added inside the UNet's blocks on the way down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import T2IAdapter
from torch import nn

from sdbuild.checkpoints.checkpoint import Checkpoint
from sdbuild.families import FAMILIES, Family
from sdbuild.families.family import PIXELS
from sdbuild.models.additions import FEATURE
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.unet import instantiate
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec

_PICTURES = {1: "a grey image", 3: "an RGB image"}
_XL = "full_adapter_xl"
_KINDS = ("full_adapter", "light_adapter", _XL)


class _Adapter(T2IAdapter):  # type: ignore[misc]  # diffusers has no types
    """diffusers' adapter with its features as a tuple."""

    def forward(self, adapter_cond: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, channels, H, W) in 0–1 → the features, largest first."""
        return tuple(super().forward(adapter_cond))


class _Unshuffle(nn.Module):
    """`torch.nn.PixelUnshuffle` of one picture in four dimensions: rows first, then columns."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) → (1, C·factor², H/factor, W/factor)."""
        _, channels, height, width = picture.shape
        rows, columns, factor = height // self.factor, width // self.factor, self.factor
        bands = picture.reshape(channels, rows, factor, width).permute(0, 2, 1, 3)
        squares = bands.reshape(channels * factor, rows, columns, factor).permute(0, 3, 1, 2)
        return squares.reshape(1, channels * factor**2, rows, columns)


def build_t2i_adapter(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The adapter of `checkpoint`; see `BuildArguments`.

    Its batch is 1: features follow from the picture alone, and are the same for every row of the UNet's batch.
    """
    config = read_config(checkpoint, "T2IAdapter")
    adapter = instantiate(_Adapter, config, checkpoint)
    latent_height, latent_width = arguments.latent_height, arguments.latent_width
    _check(adapter, checkpoint / "config.json", (latent_height, latent_width), arguments.family)
    picture = TensorSpec(
        "adapter_cond",
        (1, adapter.config.in_channels, PIXELS * latent_height, PIXELS * latent_width),
        "float16",
        f"The condition (edges, depth, pose …) as {_PICTURES[adapter.config.in_channels]}, 0 to 1.",
    )
    with torch.device("meta"):
        features = adapter(torch.empty(picture.shape))
    adapter.adapter.unshuffle = _Unshuffle(adapter.adapter.unshuffle.downscale_factor)
    return ComponentModel(
        component=component,
        module=adapter,
        inputs=(picture,),
        outputs=tuple(
            TensorSpec(f"{FEATURE}{index}", tuple(feature.shape), "float32", "Added inside a block of the UNet.")
            for index, feature in enumerate(features)
        ),
        weights=map_weights(adapter, Checkpoint.open(checkpoint)),
    )


def _check(adapter: Any, place: Path, latent: tuple[int, int], family: Family | None) -> None:
    """Refuse what no UNet of the family takes, and halve exactly where the rest is sure to.

    Raises:
        ModelError: the adapter is another family's, or a size cannot be halved as often as it does.
    """
    config = adapter.config
    if config.in_channels not in _PICTURES:
        raise ModelError(f"{place}: in_channels = {config.in_channels} is not supported; a picture has 1 or 3.")
    is_xl = family is Family.SDXL
    if (config.adapter_type == _XL) != is_xl:
        wanted = _XL if is_xl else " or ".join(kind for kind in _KINDS if kind != _XL)
        title = FAMILIES[family or Family.SD1].title
        raise ModelError(
            f"{place}: adapter_type = {config.adapter_type!r}, an adapter for another family; {title} takes {wanted}. "
            "Name an adapter that was trained for the recipe's model under t2i_adapters."
        )
    factor = max(adapter.total_downscale_factor // PIXELS, 1)
    if any(side % factor for side in latent):
        raise ModelError(
            f"A latent of {latent[0]} by {latent[1]} cannot be halved as often as the adapter of {place.parent} does: "
            f"both must be multiples of {factor}."
        )
    for child in adapter.modules():
        if isinstance(child, nn.AvgPool2d):
            # Without effect on even sizes.
            child.ceil_mode = False
