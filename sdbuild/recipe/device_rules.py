"""Preflight rules on the device: what its Neural Engine, its memory and its system cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.facts import XL_FAMILIES
from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.rule import BITS, Context, Finding, Rule, rule
from sdbuild.recipe.rules import family_of
from sdbuild.recipe.vocabulary import (
    CONTROLNET,
    T2I_ADAPTER,
    UNET_REFINER,
    AttentionImplementation,
    Component,
    ComputeUnit,
)

_LARGEST_XL_LATENT = 96


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
    if v2 and family_of(context) in XL_FAMILIES:
        message = f"SPLIT_EINSUM_V2 with an SDXL checkpoint for `{context.target.name}`"
        yield Finding(("attention_implementation",), message, "write `attention_implementation: SPLIT_EINSUM`")


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


@rule(
    "bits-need-newer-target",
    reason="The operation that looks weights up in a table knows other widths only from a newer system on.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 16 and of iOS 18; OpPalettizerConfig, nbits",
)
def _bits_need_newer_target(context: Context) -> Iterator[Finding]:
    """The minimum deployment target can hold the bits."""
    recipe = context.recipe
    holds = BITS[recipe.deployment_target]
    for part in recipe.quantization.named():
        bits = recipe.bits(part)
        if bits is not None and bits not in holds:
            message = f"`{part}` with {bits} bits, which {recipe.minimum_deployment_target} cannot hold"
            yield Finding(
                ("quantization", part), message, f"write {one_of(holds)}, or `minimum_deployment_target: iOS18`"
            )


@rule(
    "groups-need-newer-target",
    reason="Up to iOS 17 a look-up table serves a whole tensor.",
    source="coremltools documentation, constexpr_lut_to_dense of iOS 18; OpPalettizerConfig, granularity",
)
def _groups_need_newer_target(context: Context) -> Iterator[Finding]:
    """Groups of channels with look-up tables of their own are for iOS 18, macOS 15 and newer, and for tables only."""
    recipe = context.recipe
    for part in recipe.group_size.named():
        place = ("group_size", part)
        if recipe.deployment_target != "iOS18":
            message = f"groups of channels in `{part}`, which {recipe.minimum_deployment_target} cannot hold"
            yield Finding(place, message, "remove it, or write `minimum_deployment_target: iOS18`")
        if recipe.bits(part) is None or recipe.is_linear(part):
            yield Finding(place, f"`{part}` has no look-up tables", f"write bits for `quantization.{part}`")


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
    "deployment-target-newer-than-os",
    reason="A model whose specification is newer than the system does not load.",
    source="coremltools documentation, minimum_deployment_target",
)
def _deployment_target_newer(context: Context) -> Iterator[Finding]:
    """The minimum deployment target is not newer than the target's system."""
    generation = int(context.recipe.deployment_target.removeprefix("iOS"))
    if generation > context.target.os_generation:
        message = f"{context.recipe.minimum_deployment_target}, but `{context.target.name}` has {context.target.system}"
        yield Finding(
            ("minimum_deployment_target",), message, f"write `iOS{min(18, max(16, context.target.os_generation))}`"
        )


@rule(
    "sdxl-needs-ios-17",
    reason="The Swift package offers its SDXL pipeline from iOS 17 and macOS 14 on.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
)
def _sdxl_needs_ios_17(context: Context) -> Iterator[Finding]:
    """SDXL is for targets with iOS 17, macOS 14 or newer."""
    if family_of(context) in XL_FAMILIES:
        yield from before_ios_17(context, "SDXL")


@rule(
    "sdxl-size-on-neural-engine",
    reason="The Neural Engine's compiler fails on SDXL's UNet at 1024x1024; the published models for it are 768x768.",
    source="ml-stable-diffusion#255, #369",
)
def _sdxl_size_on_neural_engine(context: Context) -> Iterator[Finding]:
    """SDXL on the Neural Engine has latents of 96×96 or fewer points."""
    latent, target = context.recipe.latent, context.target
    if target.compute_unit is not ComputeUnit.CPU_AND_NE or family_of(context) not in XL_FAMILIES:
        return
    if latent.height * latent.width > _LARGEST_XL_LATENT**2:
        message = f"SDXL with latents of {latent.height}x{latent.width} on the Neural Engine of `{target.name}`"
        yield Finding(
            ("latent",), message, f"write `latent: {{height: {_LARGEST_XL_LATENT}, width: {_LARGEST_XL_LATENT}}}`"
        )


@rule(
    "non-square-on-neural-engine",
    reason="A split-einsum UNet with a latent that is not square brings systems of that generation down: kernel panic.",
    source="ml-stable-diffusion#69",
)
def _non_square_on_neural_engine(context: Context) -> Iterator[Finding]:
    """On iOS 16 and macOS 13, latents for the Neural Engine are square."""
    latent, target = context.recipe.latent, context.target
    if target.os_generation == 16 and target.compute_unit.may_use_neural_engine and latent.height != latent.width:
        message = f"latents of {latent.height}x{latent.width} for `{target.name}`, which has {target.system}"
        yield Finding(("latent",), message, "use equal height and width, or a target with a newer system")


@rule(
    "controlnet-on-m1-neural-engine",
    reason="Predictions with a ControlNet fail on the M1's Neural Engine and work on its GPU and on newer chips.",
    source="ml-stable-diffusion#251",
)
def _controlnet_on_m1(context: Context) -> Iterator[Finding]:
    """ControlNets are not for the Neural Engine of an M1."""
    target = context.target
    if context.recipe.controlnets and target.chip.split()[:1] == ["M1"] and target.compute_unit.may_use_neural_engine:
        yield Finding(
            ("controlnets",),
            f"ControlNets for `{target.name}`, an {target.chip} on {target.compute_unit}",
            "use another target",
        )


@rule(
    "all-compute-units-on-ios",
    reason="With all processors allowed the Neural Engine's compiler fails on the UNet, or the app runs out of memory.",
    source="ml-stable-diffusion#51, #49",
)
def _all_compute_units(context: Context) -> Iterator[Finding]:
    """On iPhone and iPad the compute unit is not ALL."""
    target = context.target
    if target.compute_unit is ComputeUnit.ALL and target.os != "macOS":
        message = f"ALL processors for `{target.name}`"
        yield Finding(("compute_unit",), message, "write `compute_unit: CPU_AND_NE`, or `CPU_AND_GPU`")


@rule(
    "float32-on-neural-engine",
    reason="The Neural Engine computes in half precision alone: the whole UNet would run on the CPU.",
    source="coremltools documentation, Typed Execution",
)
def _float32_on_neural_engine(context: Context) -> Iterator[Finding]:
    """UNet, ControlNets and T2I-Adapters for the Neural Engine are float16."""
    if context.target.compute_unit is not ComputeUnit.CPU_AND_NE:
        return
    recipe = context.recipe
    built = {
        Component.UNET.value: True,
        UNET_REFINER: recipe.refiner is not None,
        CONTROLNET: bool(recipe.controlnets),
        T2I_ADAPTER: bool(recipe.t2i_adapters),
    }
    for part in (name for name, there in built.items() if there):
        if recipe.precision.get(part) == "float32":
            message = f"`{part}` in float32 for the Neural Engine of `{context.target.name}`"
            yield Finding(("precision", part), message, "write `float16`, or `compute_unit: CPU_AND_GPU`")


def before_ios_17(context: Context, model: str) -> Iterator[Finding]:
    """A target whose system is older than the Swift package's pipeline for a model."""
    target = context.target
    if target.os_generation < 17:
        message = f"{model} for `{target.name}`, which has {target.system}"
        yield Finding(("targets",), message, "use a target with iOS 17 or macOS 14")


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
    bits = recipe.bits(denoiser) or (32 if recipe.precision_of(denoiser) == "float32" else 16)
    return parameters * bits / 8 / 10**6


def _smaller(context: Context, half: float, limit: float) -> str:
    """What would fit: chunks, or the most bits that make two chunks fit."""
    if half <= limit and context.recipe.unet.chunks == 1:
        return "write `unet: {chunks: 2}`, or fewer bits for the UNet"
    parameters = context.facts.parameters("unet") if context.facts is not None else None
    holds = BITS[context.recipe.deployment_target]
    fitting = [bits for bits in holds if (parameters or 0) * bits / 16 / 10**6 <= limit]
    if not fitting:
        return "build for another target"
    bits = f"`quantization: {{unet: {max(fitting)}}}`"
    return f"write {bits}" if context.recipe.unet.chunks == 2 else f"write `unet: {{chunks: 2}}` and {bits}"


DEVICE_RULES: tuple[Rule, ...] = (
    _original_on_neural_engine,
    _split_einsum_v2_sdxl,
    _chunks_required,
    _unchunked_unet_too_large,
    _chunk_too_large,
    _bits_need_newer_target,
    _groups_need_newer_target,
    _sdpa_needs_newer_target,
    _deployment_target_newer,
    _sdxl_needs_ios_17,
    _sdxl_size_on_neural_engine,
    _non_square_on_neural_engine,
    _controlnet_on_m1,
    _all_compute_units,
    _float32_on_neural_engine,
)
