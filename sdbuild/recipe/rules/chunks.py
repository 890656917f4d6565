"""Rules on UNets in two parts."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.compression.look_up_tables import widths
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import Component


@rule(
    "chunks-required",
    reason="The target's file says that a whole UNet does not work there: one half at a time must be enough.",
    source="the target's file; ml-stable-diffusion#291",
)
def _chunks_required(context: Context) -> Iterator[Finding]:
    """A target that requires chunks gets them."""
    if context.target.chunks_required and context.recipe.unet.chunks == 1 and _has_unet(context):
        yield Finding(
            ("unet", "chunks"),
            f"a whole UNet for `{context.target.name}`, which requires chunks",
            "write `unet: {chunks: 2}`",
        )


@rule(
    "unchunked-unet-too-large",
    reason="iOS and iPadOS load no model for the Neural Engine whose weights are above this size.",
    source="README of apple/ml-stable-diffusion, --chunk-unet",
)
def _unchunked_unet_too_large(context: Context) -> Iterator[Finding]:
    """A whole UNet is no larger than the target's largest model."""
    size, limit = _unet_megabytes(context), context.target.chunk_limit_mb
    if size is not None and limit is not None and context.recipe.unet.chunks == 1 and size > limit:
        message = f"a whole UNet of {size:.0f} MB, but `{context.target.name}` loads {limit:g} MB"
        yield Finding(("unet", "chunks"), message, _smaller(context, size / 2, limit))


@rule(
    "chunk-too-large",
    reason="iOS and iPadOS load no larger model for the Neural Engine, and two chunks are the most that apps look for.",
    source="README of apple/ml-stable-diffusion, --chunk-unet; the Swift package knows two chunk names",
)
def _chunk_too_large(context: Context) -> Iterator[Finding]:
    """Half a UNet is no larger than the target's largest model."""
    size, limit = _unet_megabytes(context), context.target.chunk_limit_mb
    if size is not None and limit is not None and context.recipe.unet.chunks == 2 and size / 2 > limit:
        message = f"chunks of {size / 2:.0f} MB, but `{context.target.name}` loads {limit:g} MB"
        yield Finding(("quantization", "unet"), message, _smaller(context, size / 2, limit))


def _has_unet(context: Context) -> bool:
    return Component.UNET in context.recipe.components


def _unet_megabytes(context: Context) -> float | None:
    """The weights of the UNet as stored, in 10^6 bytes; None when its size is not known."""
    return megabytes(context, Component.UNET)


def megabytes(context: Context, denoiser: Component) -> float | None:
    """The weights of a denoiser as stored, in 10^6 bytes; None when its size is not known."""
    parameters = context.facts.parameters(denoiser) if context.facts is not None else None
    recipe = context.recipe
    if parameters is None or denoiser not in recipe.components:
        return None
    compression = recipe.compression(denoiser)
    plain = parameters * (4 if recipe.precision_of(denoiser) == "float32" else 2)
    return (plain if compression is None else compression.stored_bytes(parameters)) / 10**6


def _smaller(context: Context, half: float, limit: float) -> str:
    """What would fit: chunks, or the most bits that make two chunks fit."""
    if half <= limit and context.recipe.unet.chunks == 1:
        return "write `unet: {chunks: 2}`, or fewer bits for the UNet"
    parameters = context.facts.parameters("unet") if context.facts is not None else None
    holds = widths(context.recipe.deployment_target)
    fitting = [bits for bits in holds if (parameters or 0) * bits / 16 / 10**6 <= limit]
    if not fitting:
        return "build for another target"
    bits = f"`quantization: {{unet: {max(fitting)}}}`"
    return f"write {bits}" if context.recipe.unet.chunks == 2 else f"write `unet: {{chunks: 2}}` and {bits}"
