"""Preflight rules on the pipeline: families, components, ControlNets and references."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.facts import XL_FAMILIES
from sdbuild.recipe.recipe import ModelKind
from sdbuild.recipe.rule import Context, Finding, Rule, rule
from sdbuild.recipe.vocabulary import CONTROLNET, Component

_SUPPORTED = ("sd1", "sd2", "sdxl")


def family_of(context: Context) -> str | None:
    """The checkpoint's family; without facts, SDXL where the recipe asks for a second text encoder."""
    if context.facts is not None:
        return context.facts.family
    return "sdxl" if Component.TEXT_ENCODER_2 in context.recipe.components else None


@rule(
    "unsupported-family",
    reason="Each family needs its own models and its own Resources layout; a wrong guess fails at the first tensor.",
    source="the Swift sources of apple/ml-stable-diffusion, pipeline",
)
def _unsupported_family(context: Context) -> Iterator[Finding]:
    """The checkpoint is of a family that can be built: SD 1.x, SD 2.x or SDXL base."""
    if context.facts is not None and context.facts.family not in _SUPPORTED:
        known = context.facts.family or "of no known family"
        yield Finding(("model", "version"), f"the checkpoint is {known}", f"use one of {one_of(_SUPPORTED)}")


@rule(
    "unpinned-revision",
    reason="A branch or a tag can mean other files tomorrow, so the same recipe would build another bundle.",
    source="https://huggingface.co/docs/huggingface_hub/guides/download#from-specific-version",
)
def _unpinned_revision(context: Context) -> Iterator[Finding]:
    """Every Hub id has a revision that is a commit (40 hexadecimal digits)."""
    references = [(("model",), context.recipe.model)]
    references += [(("controlnets", index), model) for index, model in enumerate(context.recipe.controlnets)]  # type: ignore[misc]
    for location, model in references:
        if model.kind is ModelKind.HUB and not model.is_pinned:
            what = f"the revision `{model.revision}` is not a commit" if model.revision else "no revision"
            place = (*location, "revision" if model.revision else "version")
            yield Finding(
                place, f"`{model.version}`: {what}", "write the commit that the Hub shows under Files, History"
            )


@rule(
    "component-missing-from-checkpoint",
    reason="A component is converted from the checkpoint's own weights.",
    source="https://huggingface.co/docs/diffusers/using-diffusers/loading#modelindexjson",
)
def _component_missing(context: Context) -> Iterator[Finding]:
    """The checkpoint holds every component that the recipe names."""
    if context.facts is None:
        return
    for index, component in enumerate(context.recipe.components):
        if component not in context.facts.components:
            has = ", ".join(sorted(context.facts.components))
            yield Finding(
                ("components", index), f"the checkpoint has no `{component}`", f"remove it; the checkpoint has {has}"
            )


@rule(
    "component-required-by-family",
    reason="The Swift pipeline loads these models without asking whether they are there.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionPipeline+Resources",
)
def _component_required(context: Context) -> Iterator[Finding]:
    """The bundle has a text encoder, a UNet and a VAE decoder, and for SDXL the second text encoder."""
    required = [Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER]
    if family_of(context) == "sdxl":
        required.insert(1, Component.TEXT_ENCODER_2)
    for component in required:
        if component not in context.recipe.components:
            yield Finding(("components",), f"`{component}` is not among the components", f"add `{component}`")


@rule(
    "setting-without-component",
    reason="A setting for a model that is not in the bundle has no effect: most often a name is wrong.",
    source="the recipe language",
)
def _setting_without_component(context: Context) -> Iterator[Finding]:
    """Bits, precision and gates are set for components that the recipe has."""
    recipe = context.recipe
    built = {component.value for component in recipe.components} | ({CONTROLNET} if recipe.controlnets else set())
    for field in ("quantization", "precision", "verify"):
        for part, value in getattr(recipe, field).named().items():
            if part not in built and value != "none":
                what = (
                    "the recipe names no ControlNet" if part == CONTROLNET else f"`{part}` is not among the components"
                )
                yield Finding((field, part), f"`{field}.{part}`: {what}", "remove the setting, or add what it is for")


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
    reason="The Swift package loads no ControlNet for SDXL.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
)
def _controlnet_unsupported(context: Context) -> Iterator[Finding]:
    """ControlNets are for SD 1.x and SD 2.x."""
    if context.recipe.controlnets and family_of(context) in XL_FAMILIES:
        yield Finding(("controlnets",), "ControlNets with an SDXL checkpoint", "remove them")


@rule(
    "safety-checker-unsupported-family",
    reason="The Swift package loads no safety checker for SDXL, whose pipeline has none.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline+Resources",
)
def _safety_checker_unsupported(context: Context) -> Iterator[Finding]:
    """A safety checker is for SD 1.x and SD 2.x."""
    components = context.recipe.components
    if Component.SAFETY_CHECKER in components and family_of(context) in XL_FAMILIES:
        place = ("components", components.index(Component.SAFETY_CHECKER))
        yield Finding(place, "a safety checker with an SDXL checkpoint", "remove `safety_checker`")


@rule(
    "batch-1-sdxl",
    reason="The Swift package always feeds SDXL's UNet two samples, with and without the prompt.",
    source="the Swift sources of apple/ml-stable-diffusion, UnetXL",
)
def _batch_1_sdxl(context: Context) -> Iterator[Finding]:
    """SDXL's UNet has batch 2."""
    if context.recipe.unet.batch == 1 and family_of(context) in XL_FAMILIES:
        yield Finding(("unet", "batch"), "a UNet of batch 1 for SDXL", "write `batch: 2`")


@rule(
    "text-sequence-too-long",
    reason="CLIP has learnt that many positions and no more; there is no embedding for the next token.",
    source="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
)
def _text_sequence_too_long(context: Context) -> Iterator[Finding]:
    """The text is no longer than the text encoders' position embeddings."""
    recipe = context.recipe
    for component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        config = context.facts.config(component) if context.facts is not None else {}
        positions = int(config.get("max_position_embeddings") or 77)
        if component in recipe.components and recipe.text_sequence_length > positions:
            message = f"{recipe.text_sequence_length} tokens, but `{component}` has {positions} positions"
            yield Finding(("text_sequence_length",), message, f"write {positions} or less")
            return


@rule(
    "latent-not-divisible",
    reason="Each level of the UNet halves the latent and doubles it again; an odd size does not come back as it was.",
    source="ml-stable-diffusion#64, #105",
)
def _latent_not_divisible(context: Context) -> Iterator[Finding]:
    """Latent height and width are multiples of what the UNet's levels divide by."""
    blocks = context.facts.unet_config.get("block_out_channels") if context.facts is not None else None
    levels = len(blocks) if blocks else 3 if family_of(context) == "sdxl" else 4
    divisor = 2 ** (levels - 1)
    for side in ("height", "width"):
        size = getattr(context.recipe.latent, side)
        if size % divisor:
            near = sorted({max(divisor, size // divisor * divisor), -(-size // divisor) * divisor})
            message = f"latent {side} {size} is not a multiple of {divisor}"
            yield Finding(("latent", side), message, f"write {one_of(near)}")


@rule(
    "precision-for-sdxl-vae",
    reason="Activations of SDXL's VAE exceed 65504, the largest half-precision number: the pictures come out black.",
    source="ml-stable-diffusion#304",
)
def _precision_for_sdxl_vae(context: Context) -> Iterator[Finding]:
    """SDXL's VAE is float32, unless its configuration says that it needs no upcast."""
    if family_of(context) not in XL_FAMILIES:
        return
    if context.facts is not None and context.facts.config("vae").get("force_upcast") is False:
        return
    for part in (Component.VAE_DECODER, Component.VAE_ENCODER):
        if context.recipe.precision.get(part) == "float16":
            yield Finding(("precision", part), f"`{part}` of SDXL in float16", "write `float32`, or leave it out")


PIPELINE_RULES: tuple[Rule, ...] = (
    _unsupported_family,
    _unpinned_revision,
    _component_missing,
    _component_required,
    _setting_without_component,
    _controlnet_with_batch_1,
    _controlnet_unsupported,
    _safety_checker_unsupported,
    _batch_1_sdxl,
    _text_sequence_too_long,
    _latent_not_divisible,
    _precision_for_sdxl_vae,
)
