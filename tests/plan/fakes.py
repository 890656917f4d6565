"""Small checkpoints that are whole: configurations and weights of which each tensor is there and fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from typing import Any

from sdbuild.checkpoints.account.tensors import network, resolved

_ONE_TO_TWO = {"block_out_channels": [8, 8], "layers_per_block": 1, "cross_attention_dim": 768}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        **_ONE_TO_TWO,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
    "controlnet": {
        "_class_name": "ControlNetModel",
        **_ONE_TO_TWO,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [8],
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"],
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 8,
    },
}


def weights(component: str, seed: str) -> bytes:
    """A safetensors file with every tensor of a component, the same for the same seed."""
    config = CONFIGS[component]
    known = network(config.get("_class_name") or config["architectures"][0])
    assert known is not None
    header: dict[str, Any] = {}
    end = 0
    for name, shape in known.wanted(resolved(config, known)).items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    pattern = sha256(seed.encode()).digest()
    return len(text).to_bytes(8, "little") + text + (pattern * (end // len(pattern) + 1))[:end]
