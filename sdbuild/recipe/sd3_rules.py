"""Preflight rules on Stable Diffusion 3: what its transformer and its pipeline in the Swift package ask for."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.recipe.device_rules import before_ios_17
from sdbuild.recipe.rule import Context, Finding, Rule, rule
from sdbuild.recipe.rules import family_of, patch_size
from sdbuild.recipe.vocabulary import Component

_TOKENS = 77


@rule(
    "vae-encoder-unsupported-family",
    reason="The Swift package takes four of the encoder's channels for the mean, and SD 3's latents have 16.",
    source="the Swift sources of apple/ml-stable-diffusion, Encoder",
)
def _vae_encoder_unsupported(context: Context) -> Iterator[Finding]:
    """A VAE encoder, for image to image, is for SD 1.x, SD 2.x and SDXL."""
    components = context.recipe.components
    if Component.VAE_ENCODER in components and family_of(context) == "sd3":
        place = ("components", components.index(Component.VAE_ENCODER))
        yield Finding(place, "a VAE encoder with an SD 3 checkpoint", "remove `vae_encoder`")


@rule(
    "text-length-sd3",
    reason="The Swift package makes SD 3's text of 77 states of both CLIP encoders and 77 of T5.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusion3Pipeline",
)
def _text_length_sd3(context: Context) -> Iterator[Finding]:
    """SD 3's text has 77 tokens."""
    length = context.recipe.text_sequence_length
    if family_of(context) == "sd3" and length < _TOKENS:
        yield Finding(("text_sequence_length",), f"{length} tokens for SD 3", f"write {_TOKENS}, or leave it out")


@rule(
    "latent-larger-than-positions",
    reason="SD 3's transformer has learnt a square of positions, of which a latent uses the middle: beyond are none.",
    source="Esser et al. 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 5.3.2",
)
def _latent_larger_than_positions(context: Context) -> Iterator[Finding]:
    """SD 3's latents are no larger than the square of positions in its transformer."""
    positions = context.facts.config("transformer").get("pos_embed_max_size") if context.facts is not None else None
    if not positions:
        return
    largest = int(positions) * patch_size(context)
    for side in ("height", "width"):
        size = getattr(context.recipe.latent, side)
        if size > largest:
            yield Finding(
                ("latent", side), f"latent {side} {size} for a transformer of {largest}", f"write {largest} or less"
            )


@rule(
    "precision-for-sd3-transformer",
    reason="The authors of the Swift package found that the transformer needs single precision.",
    source="README of apple/ml-stable-diffusion, Using Stable Diffusion 3",
)
def _precision_for_sd3_transformer(context: Context) -> Iterator[Finding]:
    """SD 3's transformer is float32."""
    if context.recipe.precision.get(Component.TRANSFORMER) == "float16":
        place = ("precision", Component.TRANSFORMER.value)
        yield Finding(place, "SD 3's transformer in float16", "write `float32`, or leave it out")


@rule(
    "sd3-needs-ios-17",
    reason="The Swift package offers its SD 3 pipeline from iOS 17 and macOS 14 on.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusion3Pipeline",
)
def _sd3_needs_ios_17(context: Context) -> Iterator[Finding]:
    """SD 3 is for targets with iOS 17, macOS 14 or newer."""
    if family_of(context) == "sd3":
        yield from before_ios_17(context, "SD 3")


@rule(
    "sd3-on-neural-engine",
    reason="SD 3's transformer needs float32, which the Neural Engine does not have: CPU and GPU alone run it.",
    source="README of apple/ml-stable-diffusion, Using Stable Diffusion 3",
)
def _sd3_on_neural_engine(context: Context) -> Iterator[Finding]:
    """SD 3 is for targets whose compute unit leaves the Neural Engine out."""
    target = context.target
    if family_of(context) == "sd3" and target.compute_unit.may_use_neural_engine:
        message = f"SD 3 for `{target.name}`, which runs on {target.compute_unit}"
        yield Finding(("targets",), message, "use a target that runs on CPU_AND_GPU")


SD3_RULES: tuple[Rule, ...] = (
    _vae_encoder_unsupported,
    _text_length_sd3,
    _latent_larger_than_positions,
    _precision_for_sd3_transformer,
    _sd3_needs_ios_17,
    _sd3_on_neural_engine,
)
