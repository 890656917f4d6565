"""Rules on what the checkpoint is."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.families import FAMILIES, XL_FAMILIES, Ability, Family
from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.rules.rule import Context, Finding, rule


@rule(
    "unsupported-family",
    reason="Each family needs its own models and its own Resources layout; a wrong guess fails at the first tensor.",
    source="the Swift sources of apple/ml-stable-diffusion, pipeline",
)
def _unsupported_family(context: Context) -> Iterator[Finding]:
    """The checkpoint is of a family that can be built: SD 1.x, SD 2.x, SDXL base or its refiner, or SD 3."""
    if context.facts is not None and context.facts.family is None:
        yield Finding(("model", "version"), "the checkpoint is of no known family", f"use one of {one_of(FAMILIES)}")


@rule(
    "unknown-unet-channels",
    reason="What the further channels hold (a depth map, a small picture …) is fed by nothing that is known.",
    source="https://huggingface.co/docs/diffusers/api/models/unet2d-cond, in_channels",
)
def _unknown_channels(context: Context) -> Iterator[Finding]:
    """The UNet takes 4 channels, 9 for inpainting, or 8 for instructions."""
    if context.facts is not None and context.facts.family is not None and context.facts.task is None:
        message = f"the UNet takes {context.facts.unet_channels} channels"
        yield Finding(("model", "version"), message, "use a checkpoint whose UNet takes 4, 8 or 9 channels")


@rule(
    "not-for-the-swift-package",
    reason="Apple's Swift package feeds the UNet four channels, no guidance scale and no T2I-Adapters' features; an "
    "app of its own can feed more.",
    source="the Swift sources of apple/ml-stable-diffusion, Unet",
)
def _not_for_the_swift_package(context: Context) -> Iterator[Finding]:
    """A UNet that wants a mask, a picture to edit, the guidance scale or features is for an app that feeds them."""
    facts = context.facts
    if context.recipe.t2i_adapters:
        message = "T2I-Adapters: the Swift package loads neither them nor the UNet that takes their features"
        yield Finding(("t2i_adapters",), message, "build them for an app that feeds `AdaptedUnet`")
    if facts is None:
        return
    help_ = "build it for an app that feeds these inputs"
    if facts.task in ("inpainting", "instruct-pix2pix"):
        message = f"an {facts.task} checkpoint: its UNet takes {facts.unet_channels} channels"
        yield Finding(("model", "version"), message, help_)
    if facts.guidance_embedding is not None:
        message = "a latent consistency model: its UNet takes the guidance scale as `timestep_cond`"
        yield Finding(("model", "version"), message, help_)


@rule(
    "sdxl-needs-ios-17",
    reason="The Swift package offers its SDXL pipeline from iOS 17 and macOS 14 on.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
)
def _sdxl_needs_ios_17(context: Context) -> Iterator[Finding]:
    """SDXL is for targets with iOS 17, macOS 14 or newer."""
    if context.family in XL_FAMILIES:
        yield from _before_its_client(context)


@rule(
    "sd3-needs-ios-17",
    reason="The Swift package offers its SD 3 pipeline from iOS 17 and macOS 14 on.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusion3Pipeline",
)
def _sd3_needs_ios_17(context: Context) -> Iterator[Finding]:
    """SD 3 is for targets with iOS 17, macOS 14 or newer."""
    if context.family is Family.SD3:
        yield from _before_its_client(context)


@rule(
    "sd3-on-neural-engine",
    reason="SD 3's transformer needs float32, which the Neural Engine does not have: CPU and GPU alone run it.",
    source="README of apple/ml-stable-diffusion, Using Stable Diffusion 3",
)
def _sd3_on_neural_engine(context: Context) -> Iterator[Finding]:
    """SD 3 is for targets whose compute unit leaves the Neural Engine out."""
    target = context.target
    if not context.can(Ability.NEURAL_ENGINE) and target.compute_unit.may_use_neural_engine:
        message = f"{context.title} for `{target.name}`, which runs on {target.compute_unit}"
        yield Finding(("targets",), message, "use a target that runs on CPU_AND_GPU")


def _before_its_client(context: Context) -> Iterator[Finding]:
    """A target whose system is older than the Swift package's pipeline for the family."""
    target, family = context.target, context.descriptor
    if family is not None and target.os_generation < family.minimum_generation:
        message = f"{family.title} for `{target.name}`, which has {target.system}"
        yield Finding(("targets",), message, "use a target with iOS 17 or macOS 14")
