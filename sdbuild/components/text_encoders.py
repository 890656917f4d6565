"""The text encoders: CLIP's two, and T5."""

from __future__ import annotations

from sdbuild.components.component import Component
from sdbuild.components.network import Argument, FunctionName, Network, Phase

_BUILD = FunctionName("text_encoder:build_text_encoder")
_ORIGINAL = FunctionName("originals:text_encoder")
_ARGUMENTS = frozenset({Argument.TEXT, Argument.FAMILY})

TEXT_ENCODER = Network(
    name=Component.TEXT_ENCODER.value,
    title="Encodes a prompt's tokens as the text states that the denoiser attends to.",
    folder="text_encoder",
    tokenizer="tokenizer",
    build=_BUILD,
    original=_ORIGINAL,
    arguments=_ARGUMENTS,
    phase=Phase.TEXT,
    description="the text encoder",
)
TEXT_ENCODER_2 = Network(
    name=Component.TEXT_ENCODER_2.value,
    title="Encodes a prompt's tokens as the second half of the text states, and as one pooled state.",
    folder="text_encoder_2",
    tokenizer="tokenizer_2",
    build=_BUILD,
    original=_ORIGINAL,
    arguments=_ARGUMENTS,
    phase=Phase.TEXT,
    description="the second text encoder",
)
TEXT_ENCODER_3 = Network(
    name=Component.TEXT_ENCODER_3.value,
    title="Encodes a prompt's tokens as the longer half of Stable Diffusion 3's text states.",
    folder="text_encoder_3",
    tokenizer="tokenizer_3",
    build=FunctionName("t5:build_t5"),
    original=FunctionName("originals:t5"),
    arguments=_ARGUMENTS,
    phase=Phase.TEXT,
    description="SD 3's third text encoder, T5",
)
