"""What other models add within a UNet: a ControlNet its residuals, a T2I-Adapter its features."""

from __future__ import annotations

from typing import Any

import torch

from sdbuild.tensors import TensorSpec

FEATURE = "additional_feature_"
"""What the UNet's inputs and a T2I-Adapter's outputs are called, before their number."""


def residuals(model: Any, batch: int, height: int, width: int, dtype: Any) -> list[TensorSpec]:
    """What a ControlNet adds to the UNet's skip connections, and last to its middle block."""
    shapes = [(model.config.block_out_channels[0], height, width)]
    for block, channels in zip(model.down_blocks, model.config.block_out_channels, strict=True):
        shapes += [(channels, height, width)] * len(block.resnets)
        if block.downsamplers is not None:
            height, width = height // 2, width // 2
            shapes.append((channels, height, width))
    shapes.append((model.config.block_out_channels[-1], height, width))
    return [
        TensorSpec(
            f"additional_residual_{index}",
            (batch, *shape),
            dtype,
            "Added to the output of the middle block." if index == len(shapes) - 1 else "Added to a skip connection.",
        )
        for index, shape in enumerate(shapes)
    ]


def features(unet: Any, batch: int, height: int, width: int) -> list[TensorSpec]:
    """What a T2I-Adapter adds to the results of the UNet's blocks on the way down, and for SDXL of the middle block.

    A block with attention takes it before it halves the size, one without after that.

    Source: Mou et al. 2023, T2I-Adapter; the places are diffusers' (`down_intrablock_additional_residuals`).
    """
    shapes = []
    for block, channels in zip(unet.down_blocks, unet.config.block_out_channels, strict=True):
        before = height, width
        if block.downsamplers is not None:
            height, width = height // 2, width // 2
        attends = getattr(block, "has_cross_attention", False)
        shapes.append((channels, *(before if attends else (height, width))))
    if unet.config.addition_embed_type == "text_time" and unet.mid_block is not None:
        shapes.append((unet.config.block_out_channels[-1], height, width))
    return [
        TensorSpec(
            f"{FEATURE}{index}",
            (batch, *shape),
            "float16",
            "The T2I-Adapters' weighted features, the same for each batch entry, added inside a block.",
        )
        for index, shape in enumerate(shapes)
    ]


def additions(tensors: tuple[torch.Tensor, ...], *, adapter_ready: bool) -> dict[str, Any]:
    """The keyword arguments of diffusers for a ControlNet's residuals or, `adapter_ready`, a T2I-Adapter's features."""
    if not tensors:
        return {}
    if adapter_ready:
        return {"down_intrablock_additional_residuals": list(tensors)}
    return {"down_block_additional_residuals": tensors[:-1], "mid_block_additional_residual": tensors[-1]}
