"""What the Swift package's files are called: models, vocabulary, tokenizers.

A *part* is what one action makes: a component, `controlled_unet`, `adapted_unet`, `controlnet-NAME` or
`t2i_adapter-NAME`. A part is one model, or two when it is a chunked UNet.
"""

from __future__ import annotations

import re

VOCABULARY = "vocab.json"
MERGES = "merges.txt"
T5_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
PACKAGE, COMPILED = ".mlpackage", ".mlmodelc"

BASE_NAMES = {
    "text_encoder": "TextEncoder",
    "text_encoder_2": "TextEncoder2",
    "text_encoder_3": "TextEncoderT5",
    "unet": "Unet",
    "transformer": "MultiModalDiffusionTransformer",
    "controlled_unet": "ControlledUnet",
    "adapted_unet": "AdaptedUnet",
    "unet_refiner": "UnetRefiner",
    "multilingual_projection": "MultilingualTextEncoderProjection",
    "vae_decoder": "VAEDecoder",
    "vae_encoder": "VAEEncoder",
    "safety_checker": "SafetyChecker",
}
"""Part → what its model is called in `Resources`, without suffix."""

FOLDERS = ("controlnet", "t2i_adapter")
"""Parts of which a bundle has any number, each kind in a folder of its own."""


def conditioner_name(version: str) -> str:
    """A ControlNet's file name, by the Swift package's rule; a T2I-Adapter's by the same.

    `lllyasviel/control_v11p_sd15_canny` becomes `LllyasvielControlV11PSd15Canny`; `builtin:` is no part of a name.
    """
    path = version.removeprefix("builtin:").replace("/", "_")
    return "".join(word.title() for word in re.split("[_-]", path))


def base_name(part: str) -> str:
    """The path of a part's model in `Resources`, without suffix: `Unet`, `controlnet/LllyasvielSdControlnetCanny`.

    Raises:
        KeyError: there is no such part.
    """
    folder, _, name = part.partition("-")
    if folder in FOLDERS:
        return f"{folder}/{name}"
    return BASE_NAMES[part]
