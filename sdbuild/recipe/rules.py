"""Preflight rules on the pipeline: families, components, ControlNets and references."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.facts import XL_FAMILIES, known_facts
from sdbuild.recipe.diagnostics import one_of
from sdbuild.recipe.references import ModelKind
from sdbuild.recipe.rule import Context, Finding, Rule, rule
from sdbuild.recipe.settings import Unet
from sdbuild.recipe.vocabulary import CONTROLNET, T2I_ADAPTER, UNET_REFINER, Component

_SUPPORTED = ("sd1", "sd2", "sdxl", "sdxl-refiner", "sd3")


_MULTILINGUAL_TOKENS = 256


def family_of(context: Context) -> str | None:
    """The checkpoint's family; without facts, what the components tell: SDXL's refiner has the second encoder alone."""
    if context.facts is not None:
        return context.facts.family
    components = context.recipe.components
    if Component.TRANSFORMER in components:
        return "sd3"
    if Component.TEXT_ENCODER_2 not in components:
        return None
    return "sdxl" if Component.TEXT_ENCODER in components else "sdxl-refiner"


@rule(
    "unsupported-family",
    reason="Each family needs its own models and its own Resources layout; a wrong guess fails at the first tensor.",
    source="the Swift sources of apple/ml-stable-diffusion, pipeline",
)
def _unsupported_family(context: Context) -> Iterator[Finding]:
    """The checkpoint is of a family that can be built: SD 1.x, SD 2.x, SDXL base or its refiner, or SD 3."""
    if context.facts is not None and context.facts.family not in _SUPPORTED:
        known = context.facts.family or "of no known family"
        yield Finding(("model", "version"), f"the checkpoint is {known}", f"use one of {one_of(_SUPPORTED)}")


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
    "unpinned-revision",
    reason="A branch or a tag can mean other files tomorrow, so the same recipe would build another bundle.",
    source="https://huggingface.co/docs/huggingface_hub/guides/download#from-specific-version",
)
def _unpinned_revision(context: Context) -> Iterator[Finding]:
    """Every Hub id has a revision that is a commit (40 hexadecimal digits), or is pinned by the recipe's lock."""
    for location, model in context.recipe.references():
        locked = context.lock is not None and context.lock.find(model.version, model.revision) is not None
        if model.kind is ModelKind.HUB and not model.is_pinned and not locked:
            what = f"the revision `{model.revision}` is not a commit" if model.revision else "no revision"
            place = (*location, "revision" if model.revision else "version")
            help_ = "write the commit that the Hub shows under Files, History, or run `doit lock` for this recipe"
            yield Finding(place, f"`{model.version}`: {what}", help_)


@rule(
    "single-file-without-tokenizer",
    reason="A single-file checkpoint holds the networks alone; without vocabulary and merges no text can be encoded.",
    source="https://github.com/CompVis/stable-diffusion, whose code downloads the tokenizer by itself",
)
def _single_file_without_tokenizer(context: Context) -> Iterator[Finding]:
    """A recipe with a single-file checkpoint and text encoders says whose tokenizer to use."""
    recipe = context.recipe
    encoders = {Component.TEXT_ENCODER, Component.TEXT_ENCODER_2} & {*recipe.components}
    if recipe.model.is_single_file and recipe.tokenizer is None and encoders:
        help_ = "name a pipeline of the same family in diffusers layout: `tokenizer: {version: …, revision: …}`"
        yield Finding(("model", "version"), "a single file, and no `tokenizer`", help_)


@rule(
    "single-file-without-prediction-type",
    reason="SD 2.x was trained to predict noise at 512×512 and velocity at 768×768, and its tensors are alike.",
    source="https://github.com/Stability-AI/stablediffusion, configs/stable-diffusion: v2-inference and v2-inference-v",
)
def _single_file_without_prediction_type(context: Context) -> Iterator[Finding]:
    """A recipe with a single file of SD 2.x says what the UNet predicts."""
    model, facts = context.recipe.model, context.facts
    if model.is_single_file and facts is not None and facts.family == "sd2" and facts.prediction_type is None:
        help_ = (
            "write `prediction_type: epsilon` for a 512×512 model, `prediction_type: v_prediction` for a 768×768 one"
        )
        yield Finding(("model", "version"), "a single file of SD 2.x, and no `prediction_type`", help_)


@rule(
    "single-file-unsupported",
    reason="A ControlNet's, T2I-Adapter's, VAE's or tokenizer's files cannot be taken out of a single-file checkpoint.",
    source="the recipe language",
)
def _single_file_unsupported(context: Context) -> Iterator[Finding]:
    """Only the pipeline itself comes from a single file."""
    for location, model in context.recipe.references():
        if location[0] not in ("controlnets", "t2i_adapters", "tokenizer", "vae"):
            continue
        if model.is_single_file:
            yield Finding((*location, "version"), "a single file here", "name a repository or a directory")


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
        given = context.recipe.vae is not None and component.checkpoint_folder == "vae"
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
    family = family_of(context) or ""
    both = [Component.TEXT_ENCODER, Component.TEXT_ENCODER_2]
    encoders = {"sdxl": both, "sd3": both, "sdxl-refiner": both[1:]}.get(family, both[:1])
    denoiser = Component.TRANSFORMER if family == "sd3" else Component.UNET
    if context.recipe.multilingual_projection is not None and len(encoders) == 1:
        encoders = []
    required = [*encoders, denoiser, Component.VAE_DECODER]
    for component in required:
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
    "refiner-without-base",
    reason="The refiner's UNet draws the last steps of a picture that SDXL's base began, with its second text encoder.",
    source="Podell et al. 2023, SDXL, 2.5; the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
)
def _refiner_without_base(context: Context) -> Iterator[Finding]:
    """`refiner` names SDXL's refiner, in a recipe for SDXL's base with its UNet."""
    recipe = context.recipe
    if recipe.refiner is None:
        return
    if family_of(context) != "sdxl" or Component.UNET not in recipe.components:
        yield Finding(("refiner",), "a refiner without SDXL's base", "remove it, or name SDXL's base under `model`")
    known = known_facts(recipe.refiner)
    if known is not None and known.family != "sdxl-refiner":
        message = f"`{recipe.refiner.version}` is no refiner but {known.family}"
        yield Finding(("refiner", "version"), message, "name a refiner's checkpoint")


@rule(
    "multilingual-projection",
    reason="The Swift package embeds texts as 256 tokens for it, in its pipeline for SD 1 and 2 alone, from iOS 17 on.",
    source="the Swift sources of apple/ml-stable-diffusion, MultilingualTextEncoder",
)
def _multilingual(context: Context) -> Iterator[Finding]:
    """A multilingual projection is for SD 1.x and SD 2.x, 256 tokens, and iOS 17, macOS 14 or newer."""
    recipe, place = context.recipe, ("multilingual_projection",)
    if recipe.multilingual_projection is None:
        return
    if family_of(context) not in ("sd1", "sd2", None):
        yield Finding(place, "a multilingual projection with another family than SD 1 and 2", "remove it")
    if recipe.text_sequence_length != _MULTILINGUAL_TOKENS:
        message = f"{recipe.text_sequence_length} tokens with a multilingual projection"
        yield Finding(("text_sequence_length",), message, f"write `text_sequence_length: {_MULTILINGUAL_TOKENS}`")
    if context.target.os_generation < 17:
        message = f"a multilingual projection for `{context.target.name}`"
        yield Finding(place, message, "use a target with iOS 17 or macOS 14")


@rule(
    "controlnet-unsupported-family",
    reason="The Swift package loads no ControlNet for SDXL and SD 3.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline, StableDiffusion3Pipeline",
)
def _controlnet_unsupported(context: Context) -> Iterator[Finding]:
    """ControlNets are for SD 1.x and SD 2.x."""
    if context.recipe.controlnets and (title := _title(context)):
        yield Finding(("controlnets",), f"ControlNets with an {title} checkpoint", "remove them")


@rule(
    "safety-checker-unsupported-family",
    reason="The Swift package loads no safety checker for SDXL and SD 3, whose pipelines have none.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline+Resources and SD 3's",
)
def _safety_checker_unsupported(context: Context) -> Iterator[Finding]:
    """A safety checker is for SD 1.x and SD 2.x."""
    components = context.recipe.components
    if Component.SAFETY_CHECKER in components and (title := _title(context)):
        place = ("components", components.index(Component.SAFETY_CHECKER))
        yield Finding(place, f"a safety checker with an {title} checkpoint", "remove `safety_checker`")


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
    reason="Each level of the UNet halves the latent and doubles it again; an odd size does not come back as it was. "
    "SD 3's transformer cuts the latent into patches.",
    source="ml-stable-diffusion#64, #105; Esser et al. 2024, Scaling Rectified Flow Transformers",
)
def _latent_not_divisible(context: Context) -> Iterator[Finding]:
    """Latent height and width are multiples of what the UNet's levels divide by, or of the transformer's patches."""
    divisor = patch_size(context) if family_of(context) == "sd3" else 2 ** (_levels(context) - 1)
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
    """SDXL's own VAE is float32, unless its configuration says that it needs no upcast."""
    if family_of(context) not in XL_FAMILIES or context.recipe.vae is not None:
        return
    if context.facts is not None and context.facts.config("vae").get("force_upcast") is False:
        return
    for part in (Component.VAE_DECODER, Component.VAE_ENCODER):
        if context.recipe.precision.get(part) == "float16":
            yield Finding(("precision", part), f"`{part}` of SDXL in float16", "write `float32`, or leave it out")


def _title(context: Context) -> str | None:
    """What the newer families, whose pipelines in the Swift package do less, are called; None for the others."""
    family = family_of(context)
    return "SDXL" if family in XL_FAMILIES else "SD 3" if family == "sd3" else None


def _levels(context: Context) -> int:
    """How many levels the UNet has."""
    blocks = context.facts.unet_config.get("block_out_channels") if context.facts is not None else None
    return len(blocks) if blocks else 3 if family_of(context) == "sdxl" and not context.recipe.refiner else 4


def patch_size(context: Context) -> int:
    """Rows and columns of the transformer's patches."""
    return int((context.facts.config("transformer") if context.facts is not None else {}).get("patch_size") or 2)


PIPELINE_RULES: tuple[Rule, ...] = (
    _unsupported_family,
    _unknown_channels,
    _not_for_the_swift_package,
    _unpinned_revision,
    _single_file_without_tokenizer,
    _single_file_without_prediction_type,
    _single_file_unsupported,
    _component_missing,
    _component_required,
    _setting_without_component,
    _controlnet_with_batch_1,
    _refiner_without_base,
    _multilingual,
    _controlnet_unsupported,
    _safety_checker_unsupported,
    _batch_1_sdxl,
    _text_sequence_too_long,
    _latent_not_divisible,
    _precision_for_sdxl_vae,
)
