"""Whose module a name means: the component, and the module's name there, in every layout of names that is known.

The layouts: diffusers and peft (`unet.…`, `transformer.…`, `text_encoder.…`, with or without `base_model.model.`),
kohya's sd-scripts and AUTOMATIC1111 (`lora_unet_…`, `lora_te1_…`), OneTrainer (`lora_transformer_…`, and the names of
the Open Model Initiative, `clip_l.…`), LyCORIS's own (`lycoris_…`), and ComfyUI (`diffusion_model.…`,
`text_encoders.clip_l.transformer.…`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DENOISER = "denoiser"
_TOWERS = {
    "clip_l": "text_encoder",
    "clip_h": "text_encoder",
    "clip_g": "text_encoder_2",
    "t5xxl": "text_encoder_3",
    "t5": "text_encoder_3",
}
# Longest first, so that no prefix hides another.
_DOTTED: dict[str, str] = {
    "model.diffusion_model.": DENOISER,
    "diffusion_model.": DENOISER,
    "unet.": DENOISER,
    "transformer.": "transformer",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    **{
        f"text_encoders.{tower}.{inner}": component
        for tower, component in _TOWERS.items()
        for inner in ("transformer.", "")
    },
    **{f"{tower}.": component for tower, component in _TOWERS.items()},
}
_FLAT: dict[str, str] = {
    "lora_unet": DENOISER,
    "lora_transformer": "transformer",
    "lycoris": DENOISER,
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
    "lora_te3": "text_encoder_3",
}
_WRAPPER = "base_model.model."

_UNET = re.compile(
    r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding|input_blocks"
    r"|middle_block|output_blocks|time_embed|label_emb|out)[._].*"
    r"|conv_in|conv_out|conv_norm_out"
)
_MMDIT = re.compile(
    r"(joint_blocks|context_embedder|pos_embed|time_text_embed|norm_out|proj_out|x_embedder|t_embedder|y_embedder"
    r"|final_layer)([._].*)?|transformer_blocks[._]\d+[._].*"
)
_CLIP = re.compile(r"(text_model[._])?(encoder[._]layers[._]|embeddings[._]|final_layer_norm).*|text_projection")
_T5 = re.compile(r"encoder[._](block|final_layer_norm)[._].*|shared")
# Denoisers of other families, by modules that no family here has.
_OTHERS: dict[str, re.Pattern[str]] = {
    "Flux": re.compile(r"(double_blocks|single_blocks|single_transformer_blocks)[._].*"),
    "Stable Cascade": re.compile(r"(down_blocks|up_blocks)[._]\d+[._]\d+[._].*"),
    "Wan": re.compile(r"blocks[._]\d+[._](self_attn|cross_attn|ffn)[._].*"),
    "HunyuanVideo": re.compile(r"(double|single)_stream.*"),
    "Qwen-Image or another": re.compile(r"transformer_blocks[._]\d+[._](img|txt)_.*"),
    "a motion module": re.compile(r".*motion_modules.*|.*temporal_transformer.*"),
}


@dataclass(frozen=True)
class Owner:
    """Where a module belongs.

    Attributes:
        component: `unet`, `transformer` or a text encoder.
        module: its name there, still with the dots or underscores of the file.
    """

    component: str
    module: str


def find_owner(module: str, hint: str | None = None) -> Owner | None:
    """Whose module a name means; None for a layout that is not known.

    Args:
        module: a tensor's name without the part behind the module.
        hint: the component whose folder the file lies in.
    """
    component, inner = _split(module)
    inner = inner.removeprefix(_WRAPPER)
    if component is None or component == DENOISER:
        guessed = _guess(inner)
        if component == DENOISER:
            component = "transformer" if guessed == "transformer" else "unet"
        else:
            component = hint or guessed
    return Owner(component, inner) if component is not None else None


def other_family(module: str) -> str | None:
    """The family that a module of a denoiser belongs to, where that is none of those that can be built."""
    return next((name for name, pattern in _OTHERS.items() if pattern.fullmatch(module)), None)


def _split(module: str) -> tuple[str | None, str]:
    bare = module.removeprefix(_WRAPPER)
    for prefix in sorted(_DOTTED, key=len, reverse=True):
        if bare.startswith(prefix):
            return _DOTTED[prefix], bare.removeprefix(prefix)
    if match := re.match(r"(lora_unet|lora_transformer|lycoris|lora_te[123]?)[._]", bare):
        return _FLAT[match[1]], bare[match.end() :]
    return None, bare


def _guess(module: str) -> str | None:
    """The component by the module's own name, as for files of one component."""
    if _MMDIT.fullmatch(module):
        return "transformer"
    if _UNET.fullmatch(module):
        return "unet"
    if _CLIP.fullmatch(module):
        return "text_encoder"
    return "text_encoder_3" if _T5.fullmatch(module) else None
