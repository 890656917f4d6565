"""Rules on the attention implementation."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.architecture import if_known, score_bytes
from sdbuild.estimate.bundle_memory import shape_of
from sdbuild.families import XL_FAMILIES
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import AttentionImplementation, Component, ComputeUnit

_LARGEST_TENSOR = 2**32


@rule(
    "original-on-neural-engine",
    reason="ORIGINAL is meant for the GPU: the Neural Engine's compiler does not come to an end, or the app crashes.",
    source="ml-stable-diffusion#267, #271, #280, #69",
)
def _original_on_neural_engine(context: Context) -> Iterator[Finding]:
    """ORIGINAL attention is for targets whose compute unit leaves the Neural Engine out."""
    original = context.recipe.attention_implementation is AttentionImplementation.ORIGINAL
    if original and context.target.compute_unit.may_use_neural_engine:
        message = f"ORIGINAL attention for `{context.target.name}`, which runs on {context.target.compute_unit}"
        yield Finding(("attention_implementation",), message, "write `SPLIT_EINSUM`, or leave it out")


@rule(
    "split-einsum-v2-sdxl",
    reason="SPLIT_EINSUM_V2 takes too long to compile for SDXL: a night was not enough.",
    source="ml-stable-diffusion#242",
)
def _split_einsum_v2_sdxl(context: Context) -> Iterator[Finding]:
    """SPLIT_EINSUM_V2 is not for SDXL."""
    v2 = context.recipe.attention_implementation is AttentionImplementation.SPLIT_EINSUM_V2
    if v2 and context.family in XL_FAMILIES:
        message = f"SPLIT_EINSUM_V2 with an SDXL checkpoint for `{context.target.name}`"
        yield Finding(("attention_implementation",), message, "write `attention_implementation: SPLIT_EINSUM`")


@rule(
    "sdpa-needs-newer-target",
    reason="The fused attention operation came with iOS 18 and macOS 15; no older system knows it.",
    source="coremltools documentation, scaled_dot_product_attention of iOS 18",
)
def _sdpa_needs_newer_target(context: Context) -> Iterator[Finding]:
    """SDPA is for a minimum deployment target of iOS 18, macOS 15 or newer."""
    fused = context.recipe.attention_implementation is AttentionImplementation.SDPA
    if fused and context.recipe.deployment_target != "iOS18":
        message = f"SDPA attention for {context.recipe.minimum_deployment_target}"
        yield Finding(
            ("attention_implementation",), message, "write `minimum_deployment_target: iOS18`, or `SPLIT_EINSUM`"
        )


@rule(
    "attention-too-large-for-gpu",
    reason="Metal Performance Shaders end the app on a tensor of more than 2^32 bytes.",
    source="AUTOMATIC1111/stable-diffusion-webui#1342, #5796; invoke-ai/InvokeAI#2624",
)
def _attention_too_large(context: Context) -> Iterator[Finding]:
    """ORIGINAL attention's scores, of all heads together, are a tensor that the GPU can hold."""
    recipe = context.recipe
    original = recipe.attention_implementation is AttentionImplementation.ORIGINAL
    if context.facts is None or not original or context.target.compute_unit is ComputeUnit.CPU_ONLY:
        return
    size = if_known(score_bytes, context.facts.unet_config, shape_of(recipe, Component.UNET, context.facts))
    if size is not None and size > _LARGEST_TENSOR:
        latent = f"{recipe.latent.height}x{recipe.latent.width}"
        message = f"attention scores of {size / 2**30:.1f} GiB with latents of {latent} for `{context.target.name}`"
        yield Finding(("latent",), message, "write a smaller latent, or `attention_implementation: SPLIT_EINSUM`")
