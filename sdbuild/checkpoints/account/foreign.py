"""Tensors that belong to another kind of model, or to one stored in a way that cannot be read: told by their names.

Left out, each would change the picture, so each is refused by its own name.
"""

from __future__ import annotations

import re

_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)(position_net|fuser)\.", "GLIGEN's grounding layers (Li et al. 2023): no pipeline here gives boxes"),
    (
        r"(^|\.)motion_modules?\.|temporal_transformer|(^|\.)time_stack\.|time_mixer",
        "layers over time, of a model for videos: pictures alone are drawn here",
    ),
    (
        r"(^|\.)(to_[kv]_ip|ip_adapter|image_proj|processor\.to_)",
        "an IP-Adapter's (Ye et al. 2023): no pipeline here gives it pictures",
    ),
    (r"(^|\.)class_embedding\.|(^|\.)label_emb\.0\.0\.weight_noise", "a class's or noise level's embedding"),
    (
        r"(^|\.)noise_augmentor\.|^embedder\.model\.visual\.",
        "unCLIP's picture encoder: no pipeline here gives it pictures",
    ),
    (r"lora_(A|B|up|down|unet|te)|\.(hada|lokr)_w", "a LoRA's that was not fused: give it under `loras`"),
    (
        r"\.(absmax|quant_map|nested_absmax|quant_state)(\.|$)|\.SCB$",
        "bitsandbytes' quantised weights: give half precision",
    ),
    (r"\.(qweight|qzeros|scales|g_idx)$", "GPTQ's or AWQ's quantised weights: give half precision"),
)
_COMPILED = tuple((re.compile(pattern), reason) for pattern, reason in _PATTERNS)


def foreign(name: str) -> str | None:
    """Why a tensor of that name cannot be left out; None for every other name."""
    return next((reason for pattern, reason in _COMPILED if pattern.search(name)), None)
