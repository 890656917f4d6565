"""Rules on the latent's height and width, and on the batch."""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

from sdbuild.checkpoints.facts import known_facts
from sdbuild.families import FAMILIES, XL_FAMILIES, Family
from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import ComputeUnit

_LARGEST_XL_LATENT = 96


@rule(
    "latent-not-divisible",
    reason="Each level of the UNet halves the latent and doubles it again; an odd size does not come back as it was. "
    "SD 3's transformer cuts the latent into patches.",
    source="ml-stable-diffusion#64, #105; Esser et al. 2024, Scaling Rectified Flow Transformers",
)
def _latent_not_divisible(context: Context) -> Iterator[Finding]:
    """Latent height and width are multiples of what the UNet's levels divide by, or of the transformer's patches."""
    divisor = _divisor(context)
    for side in ("height", "width"):
        size = getattr(context.recipe.latent, side)
        if size % divisor:
            near = sorted({max(divisor, size // divisor * divisor), -(-size // divisor) * divisor})
            message = f"latent {side} {size} is not a multiple of {divisor}"
            yield Finding(("latent", side), message, f"write {one_of(near)}")


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
    largest = int(positions) * _divisor(context)
    for side in ("height", "width"):
        size = getattr(context.recipe.latent, side)
        if size > largest:
            yield Finding(
                ("latent", side), f"latent {side} {size} for a transformer of {largest}", f"write {largest} or less"
            )


@rule(
    "sdxl-size-on-neural-engine",
    reason="The Neural Engine's compiler fails on SDXL's UNet at 1024x1024; the published models for it are 768x768.",
    source="ml-stable-diffusion#255, #369",
)
def _sdxl_size_on_neural_engine(context: Context) -> Iterator[Finding]:
    """SDXL on the Neural Engine has latents of 96×96 or fewer points."""
    latent, target = context.recipe.latent, context.target
    if target.compute_unit is not ComputeUnit.CPU_AND_NE or context.family not in XL_FAMILIES:
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
    "batch-1-sdxl",
    reason="The Swift package always feeds SDXL's UNet two samples, with and without the prompt.",
    source="the Swift sources of apple/ml-stable-diffusion, UnetXL",
)
def _batch_1_sdxl(context: Context) -> Iterator[Finding]:
    """SDXL's UNet has batch 2."""
    if context.recipe.unet.batch == 1 and context.family in XL_FAMILIES:
        yield Finding(("unet", "batch"), "a UNet of batch 1 for SDXL", "write `batch: 2`")


def _divisor(context: Context) -> int:
    """What both sides of the latent are multiples of, for the pipeline's denoiser and for the refiner beside it."""
    family = FAMILIES[context.family or Family.SD1]
    divisors = [family.divisor(context.configs())]
    if context.recipe.refiner is not None:
        known = known_facts(context.recipe.refiner)
        divisors.append(FAMILIES[Family.REFINER].divisor({} if known is None else {"unet": known.unet_config}))
    return lcm(*divisors)
