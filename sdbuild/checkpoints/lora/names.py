"""What the last part of a tensor's name says in a file of low-rank adapters: its part in one module's change.

A module's tensors are called `MODULE.PART`; the parts are those of peft, of diffusers before it, of kohya's sd-scripts,
of LyCORIS (Yeh et al. 2023, Navigating Text-To-Image Customization) and of OneTrainer. What a part means is said in
`sdbuild.checkpoints.lora.changes` and `sdbuild.checkpoints.lora.rotations`.
"""

from __future__ import annotations

import re

# peft puts the adapter's name behind the part; files that were saved with it keep `default`.
_ADAPTER = r"(?:\.\w+)??"
_PARTS: dict[str, str] = {
    "down": rf"lora_A{_ADAPTER}\.weight|lora_down\.weight|lora\.down\.weight|lora_linear_layer\.down\.weight",
    "up": rf"lora_B{_ADAPTER}\.weight|lora_up\.weight|lora\.up\.weight|lora_linear_layer\.up\.weight",
    "up_bias": rf"lora_B{_ADAPTER}\.bias|lora_up\.bias",
    "mid": r"lora_mid\.weight",
    "embedding_down": rf"lora_embedding_A{_ADAPTER}",
    "embedding_up": rf"lora_embedding_B{_ADAPTER}",
    "magnitude": rf"lora_magnitude_vector{_ADAPTER}(?:\.weight)?",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    **{name: f"{name}{_ADAPTER}" for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{name: f"{name}{_ADAPTER}" for name in ("hada_t1", "hada_t2")},
    **{name: f"{name}{_ADAPTER}" for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b")},
    **{name: f"{name}{_ADAPTER}" for name in ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    **{name: rf"{name}\.weight" for name in ("a1", "a2", "b1", "b2", "bm")},
    "oft_blocks": "oft_blocks",
    "rescale": "rescale",
    "ia3": rf"ia3_l{_ADAPTER}",
    "on_input": "on_input",
    "difference": "diff",
    "bias_difference": "diff_b",
    "norm_difference": "w_norm",
    "norm_bias_difference": "b_norm",
    "weight": rf"set_weight|(?:base_layer\.|modules_to_save{_ADAPTER}\.)?weight",
    "bias": rf"(?:base_layer\.|modules_to_save{_ADAPTER}\.)?bias",
}
# What is known and cannot be fused, because weights alone do not define it, or nobody writes it for these models.
_REFUSED: dict[str, str] = {
    "oft_diag": "an early form of OFT",
    rf"oft_[rR]{_ADAPTER}(?:\.weight)?": "peft's OFT",
    rf"boft_[Rs]{_ADAPTER}": "peft's BOFT",
    rf"vera_lambda_[bd]{_ADAPTER}": "VeRA",
    rf"lora_E{_ADAPTER}": "AdaLoRA",
    rf"hra_u{_ADAPTER}": "HRA",
    rf"fourierft_spectrum{_ADAPTER}": "FourierFT",
    rf"(?:bone|miss)_\w+{_ADAPTER}": "Bone or MiSS",
    rf"randlora_\w+{_ADAPTER}": "RandLoRA",
    rf"c3a_kernel{_ADAPTER}": "C3A",
    rf"shira_weight{_ADAPTER}": "SHiRA",
    r"(?:q_layer\.weight|p_layer\.weight|lambda_layer)": "T-LoRA, which changes with the time step",
    "reshape_weight": "a LoRA that changes the shape of a weight",
    rf"lora_ranknum{_ADAPTER}": "AdaLoRA",
}
_KNOWN = [(part, re.compile(rf"(?P<module>.+?)[._](?:{pattern})")) for part, pattern in _PARTS.items()]
_UNFIT = [(kind, re.compile(rf".+?[._](?:{pattern})")) for pattern, kind in _REFUSED.items()]

BUNDLED = re.compile(r"bundle_emb\.(?P<token>.+?)\.(?P<key>string_to_param\.\*|[^.]+)")
"""OneTrainer's name of an embedding that travels with a LoRA: the word, and whose vectors they are."""


def split_name(name: str) -> tuple[str, str] | None:
    """A tensor's module and part; None for a name that no adapter writes."""
    for part, pattern in _KNOWN:
        if match := pattern.fullmatch(name):
            return match["module"], part
    return None


def unsupported_kind(name: str) -> str | None:
    """The kind of adapter that a tensor's name betrays, where that kind cannot be fused."""
    return next((kind for kind, pattern in _UNFIT if pattern.fullmatch(name)), None)
