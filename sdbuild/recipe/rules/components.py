"""Rules on which components a recipe has, and on settings for those that it has not."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.components import folder_of
from sdbuild.components.component import Component
from sdbuild.families import FAMILIES, Ability, Family
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.settings import Unet
from sdbuild.recipe.vocabulary import CONTROLNET, T2I_ADAPTER, UNET_REFINER


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
        given = context.recipe.vae is not None and folder_of(component) == "vae"
        if component not in context.facts.components and not given:
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
    """The bundle has a denoiser, a VAE decoder and a text encoder.

    SDXL and SD 3 have two text encoders, SDXL's refiner the second alone; SD 3 has its transformer instead of a UNet.
    """
    family = FAMILIES[context.family or Family.SD1]
    multilingual = context.recipe.multilingual_projection is not None and family.can(Ability.MULTILINGUAL_PROJECTION)
    projected = Component.TEXT_ENCODER if multilingual else None
    for component in (each for each in family.required if each is not projected):
        if component not in context.recipe.components:
            yield Finding(("components",), f"`{component}` is not among the components", f"add `{component}`")


@rule(
    "setting-without-component",
    reason="A setting for a model that is not in the bundle has no effect: most often a name is wrong.",
    source="the recipe language",
)
def _setting_without_component(context: Context) -> Iterator[Finding]:
    """Bits, precision, gates and the UNet's batch and chunks are set for components that the recipe has."""
    recipe = context.recipe
    if Component.UNET not in recipe.components and recipe.unet != Unet():
        yield Finding(("unet",), "`unet`: `unet` is not among the components", "remove the setting")
    built = {component.value for component in recipe.components}
    named = {CONTROLNET: recipe.controlnets, T2I_ADAPTER: recipe.t2i_adapters, UNET_REFINER: recipe.refiner}
    built |= {part for part, models in named.items() if models}
    for field in ("quantization", "group_size", "precision", "verify"):
        for part, value in getattr(recipe, field).named().items():
            if part not in built and value != "none":
                what = {
                    CONTROLNET: "the recipe names no ControlNet",
                    T2I_ADAPTER: "the recipe names no T2I-Adapter",
                    UNET_REFINER: "the recipe names no refiner",
                }.get(part, f"`{part}` is not among the components")
                yield Finding((field, part), f"`{field}.{part}`: {what}", "remove the setting, or add what it is for")


@rule(
    "vae-encoder-unsupported-family",
    reason="The Swift package takes four of the encoder's channels for the mean, and SD 3's latents have 16.",
    source="the Swift sources of apple/ml-stable-diffusion, Encoder",
)
def _vae_encoder_unsupported(context: Context) -> Iterator[Finding]:
    """A VAE encoder, for image to image, is for SD 1.x, SD 2.x and SDXL."""
    components = context.recipe.components
    if Component.VAE_ENCODER in components and not context.can(Ability.IMAGE_TO_IMAGE):
        place = ("components", components.index(Component.VAE_ENCODER))
        yield Finding(place, f"a VAE encoder with an {context.title} checkpoint", "remove `vae_encoder`")


@rule(
    "safety-checker-unsupported-family",
    reason="The Swift package loads no safety checker for SDXL and SD 3, whose pipelines have none.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline+Resources and SD 3's",
)
def _safety_checker_unsupported(context: Context) -> Iterator[Finding]:
    """A safety checker is for SD 1.x and SD 2.x."""
    components = context.recipe.components
    if Component.SAFETY_CHECKER in components and not context.can(Ability.SAFETY_CHECKER):
        place = ("components", components.index(Component.SAFETY_CHECKER))
        yield Finding(place, f"a safety checker with an {context.title} checkpoint", "remove `safety_checker`")
