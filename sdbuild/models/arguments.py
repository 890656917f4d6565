"""What fixes a model's inputs and outputs besides the configuration of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.families import Family
from sdbuild.models.attention import QUERY_CHUNK


@dataclass(frozen=True)
class BuildArguments:
    """How a network is built; each network reads what concerns it.

    Attributes:
        attention_implementation: ORIGINAL, SPLIT_EINSUM, SPLIT_EINSUM_V2 or SDPA: the denoiser's and the ControlNet's.
        latent_height: rows of the latent; everybody's but the text encoders'.
        latent_width: columns of the latent.
        text_sequence_length: tokens of a prompt: the text encoders' and the denoisers'.
        batch: 2 for guided generation, 1 without.
        controlnet_ready: whether the UNet takes a ControlNet's residuals.
        adapter_ready: whether the UNet takes a T2I-Adapter's features.
        family: the checkpoint's. A text encoder's own files do not say whether it is SDXL's first, a
            T2I-Adapter is judged by it, and a small refiner may look like a base model; everything else is read from
            the files.
        latent_statistics: whether a VAE that has a mean and a spread of latents applies them itself.
        clip_skip: how many of a CLIP text encoder's last layers its hidden states are taken before.
        query_chunk: the length of a piece of the query sequence in SPLIT_EINSUM_V2.
    """

    attention_implementation: str = "SPLIT_EINSUM"
    latent_height: int = 64
    latent_width: int = 64
    text_sequence_length: int = 77
    batch: int = 2
    controlnet_ready: bool = False
    adapter_ready: bool = False
    family: Family | None = None
    latent_statistics: bool = False
    clip_skip: int = 0
    query_chunk: int = QUERY_CHUNK

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> BuildArguments:
        """Of arguments as key documents hold them, in which a family is its name."""
        family = arguments.get("family")
        return cls(**{**arguments, "family": None if family is None else Family(family)})
