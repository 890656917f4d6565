"""Rules on ControlNets, T2I-Adapters and the refiner."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.adapter_kinds import FULL_XL, published_config
from sdbuild.checkpoints.facts import known_facts
from sdbuild.families import FAMILIES, Ability, Family
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import Component


@rule(
    "controlnet-with-batch-1",
    reason="The Swift pipeline feeds ControlNets two samples at a time, with and without the prompt.",
    source="the Swift sources of apple/ml-stable-diffusion, ControlNet",
)
def _controlnet_with_batch_1(context: Context) -> Iterator[Finding]:
    """A recipe with ControlNets has a UNet of batch 2."""
    if context.recipe.controlnets and context.recipe.unet.batch == 1:
        yield Finding(
            ("unet", "batch"), "ControlNets with a UNet of batch 1", "write `batch: 2`, or remove the ControlNets"
        )


@rule(
    "controlnet-unsupported-family",
    reason="The Swift package loads no ControlNet for SDXL and SD 3.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline, StableDiffusion3Pipeline",
)
def _controlnet_unsupported(context: Context) -> Iterator[Finding]:
    """ControlNets are for SD 1.x and SD 2.x."""
    if context.recipe.controlnets and not context.can(Ability.CONTROLNETS):
        yield Finding(("controlnets",), f"ControlNets with an {context.title} checkpoint", "remove them")


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
    "t2i-adapter-unsupported-family",
    reason="T2I-Adapters were trained for SD 1.x and for SDXL's base; no other UNet knows what their features mean.",
    source="Mou et al. 2023, T2I-Adapter; https://huggingface.co/TencentARC",
)
def _unsupported_family(context: Context) -> Iterator[Finding]:
    """T2I-Adapters are for SD 1.x and SDXL's base."""
    if context.recipe.t2i_adapters and not context.can(Ability.T2I_ADAPTERS):
        message = f"T2I-Adapters with a checkpoint of the family {context.family}"
        yield Finding(("t2i_adapters",), message, "remove them")


@rule(
    "t2i-adapter-of-another-family",
    reason="The features of an adapter for SD 1.x have other sizes than those for SDXL.",
    source="Mou et al. 2023, T2I-Adapter; `adapter_type` in the adapter's config.json",
)
def _another_family(context: Context) -> Iterator[Finding]:
    """A published T2I-Adapter was trained for the checkpoint's family."""
    family = context.family
    for index, adapter in enumerate(context.recipe.t2i_adapters):
        config = published_config(adapter)
        if config is None or family is None:
            continue
        if (config["adapter_type"] == FULL_XL) != (family is Family.SDXL):
            wanted = FAMILIES[Family.SDXL if family is Family.SDXL else Family.SD1].title
            message = f"`{adapter.version}` was trained for another family than {family}"
            yield Finding(("t2i_adapters", index, "version"), message, f"name an adapter for {wanted}")


@rule(
    "refiner-without-base",
    reason="The refiner's UNet draws the last steps of a picture that SDXL's base began, with its second text encoder.",
    source="Podell et al. 2023, SDXL, 2.5; the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
)
def _refiner_without_base(context: Context) -> Iterator[Finding]:
    """`refiner` names SDXL's refiner, in a recipe for SDXL's base with its UNet."""
    recipe = context.recipe
    if recipe.refiner is None:
        return
    if context.family is not Family.SDXL or Component.UNET not in recipe.components:
        yield Finding(("refiner",), "a refiner without SDXL's base", "remove it, or name SDXL's base under `model`")
    known = known_facts(recipe.refiner)
    if known is not None and known.family is not Family.REFINER:
        message = f"`{recipe.refiner.version}` is no refiner but {known.family}"
        yield Finding(("refiner", "version"), message, "name a refiner's checkpoint")
