"""TAESD, a small autoencoder (https://github.com/madebyollin/taesd), in the names of its files and of diffusers.

diffusers calls it `AutoencoderTiny`: encoder and decoder are lists of layers, `encoder.layers.N`. The author's files
hold one half each, with layers counted alike but for the decoder's first, a clamp, which is not in diffusers' list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TINY_CLASS = "AutoencoderTiny"
DIFFUSERS, ENCODER, DECODER = "taesd", "taesd_encoder", "taesd_decoder"
"""Whose names: diffusers' for both halves, or the author's for one."""

Shapes = Mapping[str, tuple[int, ...]]


def is_tiny(shapes: Shapes) -> str | None:
    """Whose names a file has; None for another autoencoder's."""
    if any(re.match(r"(encoder|decoder)\.layers\.\d+\.", name) for name in shapes):
        return DIFFUSERS
    numbered = {name: shape for name, shape in shapes.items() if re.match(r"\d+\.", name)}
    if not numbered or len(numbered) != len(shapes):
        return None
    # The encoder begins with the picture's three channels, the decoder ends with them.
    return ENCODER if "0.weight" in shapes and shapes["0.weight"][1] == 3 else DECODER


def tiny_config(shapes: Shapes, layout: str) -> dict[str, Any]:
    """The configuration of `AutoencoderTiny` as far as shapes tell it; the latents are neither scaled nor shifted."""
    first = {
        DIFFUSERS: ("decoder.layers.0.weight", "encoder.layers.0.weight"),
        ENCODER: ("", "0.weight"),
        DECODER: ("1.weight", ""),
    }[layout]
    decoder, encoder = (shapes.get(name) for name in first)
    last = max(
        (int(m[1]) for name in shapes if (m := re.match(r"(?:encoder\.layers\.)?(\d+)\.weight", name))), default=0
    )
    if decoder is not None:
        channels = decoder[1]
    else:
        channels = shapes["encoder.layers.14.weight" if layout == DIFFUSERS else f"{last}.weight"][0]
    width = (decoder or encoder or (64,))[0]
    return {
        "_class_name": TINY_CLASS,
        "act_fn": "relu",
        "decoder_block_out_channels": [width] * 4,
        "encoder_block_out_channels": [width] * 4,
        "force_upcast": False,
        "in_channels": 3,
        "latent_channels": channels,
        "num_decoder_blocks": [3, 3, 3, 1],
        "num_encoder_blocks": [1, 3, 3, 3],
        "out_channels": 3,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    }


def tiny_name(name: str, layout: str) -> str:
    """A tensor's name in diffusers' layout."""
    if layout == DIFFUSERS:
        return name
    number, _, rest = name.partition(".")
    if layout == ENCODER:
        return f"encoder.layers.{number}.{rest}"
    return f"decoder.layers.{int(number) - 1}.{rest}"


def tiny_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape, as diffusers' class has them."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        found[f"{name}.weight"] = (outputs, inputs, 3, 3)
        if bias:
            found[f"{name}.bias"] = (outputs,)

    def blocks(half: str, number: int, count: int, width: int) -> int:
        for index in range(number, number + count):
            for inner in (0, 2, 4):
                convolution(f"{half}.layers.{index}.conv.{inner}", width, width)
        return number + count

    number, latent = 0, config["latent_channels"]
    levels = list(zip(config["num_encoder_blocks"], config["encoder_block_out_channels"], strict=True))
    for level, (count, width) in enumerate(levels):
        convolution(f"encoder.layers.{number}", width if level else config["in_channels"], width, bias=not level)
        number = blocks("encoder", number + 1, count, width)
    convolution(f"encoder.layers.{number}", levels[-1][1], latent)
    levels = list(zip(config["num_decoder_blocks"], config["decoder_block_out_channels"], strict=True))
    convolution("decoder.layers.0", latent, levels[0][1])
    number = 2  # the activation has no weights, and neither have the upsamplers
    for level, (count, width) in enumerate(levels):
        last = level == len(levels) - 1
        number = blocks("decoder", number, count, width) + (0 if last else 1)
        convolution(f"decoder.layers.{number}", width, config["out_channels"] if last else width, bias=last)
        number += 1
    return found
