"""The entry of this room: from a component's folder to a model that can be exported."""

from __future__ import annotations

from pathlib import Path

from sdbuild.models.attention import QUERY_CHUNK
from sdbuild.models.component import ComponentModel
from sdbuild.models.errors import ModelError

# Pixels for each latent row and column: the same in every autoencoder that came with a safety checker.
_PIXELS = 8


def build(
    component: str,
    checkpoint: Path,
    *,
    attention_implementation: str = "SPLIT_EINSUM",
    latent_height: int = 64,
    latent_width: int = 64,
    text_sequence_length: int = 77,
    batch: int = 2,
    controlnet_ready: bool = False,
    adapter_ready: bool = False,
    family: str | None = None,
    query_chunk: int = QUERY_CHUNK,
) -> ComponentModel:
    """Build a component without its weights.

    Each component reads the arguments that concern it: attention, batch and `controlnet_ready` are the denoiser's and
    the ControlNet's; the text length is theirs and the text encoders'; the latent size is everybody's but the text
    encoders'.

    Args:
        component: `text_encoder`, `text_encoder_2`, `text_encoder_3`, `unet`, `transformer`, `vae_decoder`,
            `vae_encoder`, `safety_checker`, `controlnet` or `t2i_adapter`.
        checkpoint: the folder with this component's config.json and weights.
        attention_implementation: ORIGINAL, SPLIT_EINSUM, SPLIT_EINSUM_V2 or SDPA.
        latent_height: rows of the latent.
        latent_width: columns of the latent.
        text_sequence_length: tokens of a prompt.
        batch: 2 for guided generation, 1 without.
        controlnet_ready: whether the UNet takes a ControlNet's residuals.
        adapter_ready: whether the UNet takes a T2I-Adapter's features.
        family: `sd1`, `sd2`, `sdxl`, `sdxl-refiner` or `sd3`. A text encoder's own files do not say whether it is
            SDXL's first, a T2I-Adapter is judged by it, and a small refiner may look like a base model; everything else
            is read from the files.
        query_chunk: the length of a piece of the query sequence in SPLIT_EINSUM_V2.

    Raises:
        ModelError: what is missing or not supported, and in which file.
    """
    if component in ("text_encoder", "text_encoder_2"):
        from sdbuild.models.text_encoder import build_text_encoder

        return build_text_encoder(component, checkpoint, text_sequence_length=text_sequence_length, family=family)
    if component == "text_encoder_3":
        from sdbuild.models.t5 import build_t5

        return build_t5(checkpoint, text_sequence_length=text_sequence_length)
    if component in ("vae_decoder", "vae_encoder"):
        from sdbuild.models.vae import build_vae

        return build_vae(component, checkpoint, latent_height=latent_height, latent_width=latent_width, family=family)
    if component == "safety_checker":
        from sdbuild.models.safety_checker import build_safety_checker

        size = {"image_height": _PIXELS * latent_height, "image_width": _PIXELS * latent_width}
        return build_safety_checker(checkpoint, **size, family=family)
    if component == "multilingual_projection":
        from sdbuild.models.multilingual import build_multilingual_projection

        return build_multilingual_projection(checkpoint)
    if component == "unet":
        from sdbuild.models.unet import build_unet

        return build_unet(
            checkpoint,
            attention_implementation=attention_implementation,
            latent_height=latent_height,
            latent_width=latent_width,
            text_sequence_length=text_sequence_length,
            batch=batch,
            controlnet_ready=controlnet_ready,
            adapter_ready=adapter_ready,
            family=family,
            query_chunk=query_chunk,
        )
    if component == "transformer":
        from sdbuild.models.mmdit import build_transformer

        return build_transformer(
            checkpoint,
            attention_implementation=attention_implementation,
            latent_height=latent_height,
            latent_width=latent_width,
            text_sequence_length=text_sequence_length,
            batch=batch,
            query_chunk=query_chunk,
        )
    if component == "controlnet":
        from sdbuild.models.controlnet import build_controlnet

        return build_controlnet(
            checkpoint,
            attention_implementation=attention_implementation,
            latent_height=latent_height,
            latent_width=latent_width,
            text_sequence_length=text_sequence_length,
            batch=batch,
            family=family,
            query_chunk=query_chunk,
        )
    if component == "t2i_adapter":
        from sdbuild.models.t2i_adapter import build_t2i_adapter

        return build_t2i_adapter(checkpoint, latent_height=latent_height, latent_width=latent_width, family=family)
    raise ModelError(
        f"Unknown component {component!r}; known are text_encoder, text_encoder_2, text_encoder_3, unet, transformer, "
        "vae_decoder, vae_encoder, safety_checker, controlnet and t2i_adapter."
    )
