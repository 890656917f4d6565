"""What is known of T2I-Adapters before any of their files is here: their kind, and what they need in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdbuild.checkpoints.architecture import Config, Needs, Shape, conv
from sdbuild.checkpoints.published import T2I_ADAPTERS
from sdbuild.families.family import PIXELS
from sdbuild.recipe.references import Reference

FULL, LIGHT, FULL_XL = "full_adapter", "light_adapter", "full_adapter_xl"


def published_config(adapter: Reference) -> Config | None:
    """The configuration of a published adapter; None for all others."""
    return T2I_ADAPTERS.get(adapter.version)


def likely_config(unet: Config) -> Config:
    """The configuration that an adapter for a UNet most likely has: the one that TencentARC trained them with."""
    channels = list(unet["block_out_channels"])
    common: dict[str, Any] = {"in_channels": 3, "num_res_blocks": 2}
    if unet.get("addition_embed_type") == "text_time":
        return common | {"adapter_type": FULL_XL, "downscale_factor": 16, "channels": [*channels, channels[-1]]}
    return common | {"adapter_type": FULL, "downscale_factor": 8, "channels": channels}


def needs(config: Config, shape: Shape) -> Needs:
    """What an adapter needs, for one picture.

    Source: Mou et al. 2023, T2I-Adapter, 3.2; the numbers of layers are those of diffusers' T2IAdapter.
    """
    factor, light = int(config["downscale_factor"]), config["adapter_type"] == LIGHT
    channels: Sequence[int] = config["channels"]
    widths = [*channels, channels[-1]] if light else list(channels)
    pictures = int(config.get("in_channels") or 3)
    first = pictures * factor**2
    parameters = 0 if light else conv(first, widths[0])
    points = (PIXELS * shape.height // factor) * (PIXELS * shape.width // factor)
    fullest, features, previous = first * points, 0, first if light else widths[0]
    for index, width in enumerate(widths):
        inner = width // 4 if light else width
        if index == 2 or (index and config["adapter_type"] != FULL_XL):
            points //= 4
        if light:
            parameters += conv(previous, inner, 1) + conv(inner, width, 1)
        elif previous != width:
            parameters += conv(previous, width, 1)
        parameters += int(config["num_res_blocks"]) * (conv(inner, inner) + conv(inner, inner, 3 if light else 1))
        # Beside the features so far, a residual block has its input, and what its convolutions take and give.
        fullest = max(fullest, features + 3 * inner * points)
        features += width * points
        previous = width
    picture = pictures * PIXELS**2 * shape.height * shape.width
    # The features are float32.
    return Needs(parameters, max(fullest * shape.bytes, 4 * features) + picture * shape.bytes)
