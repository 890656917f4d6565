"""The drafts of a recipe's contact sheet: a small bundle for each column, and the stage that draws with all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sdbuild.plan.draft import TargetPlan, exact
from sdbuild.plan.graph import Draft
from sdbuild.recipe import Component, ContactSheet, Quantization, Recipe, Unet
from sdbuild.recipe.vocabulary import SheetBits

_DRAWS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2, Component.UNET, Component.VAE_DECODER)
_FOLDERS = ("index", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
_WHOLE = "float16"


def sheet_drafts(plan: TargetPlan, sheet: ContactSheet, drafts: tuple[Draft, ...]) -> Iterator[Draft]:
    """What a contact sheet needs besides the target's own drafts, producers before consumers.

    Args:
        plan: the target whose models draw.
        sheet: what the recipe asks for.
        drafts: the target's own drafts; equal work is taken from there.
    """
    columns: dict[str, SheetBits | None] = {_WHOLE: None} | {f"{bits}-bits": bits for bits in sheet.bits}
    known = {draft.identity: draft for draft in drafts}
    bundles = {}
    for column, bits in columns.items():
        variant = replace(plan, recipe=_variant(plan.recipe, bits), verify=False, compiler=None, _drafts={})
        for draft in variant.drafts():
            if draft.identity not in known:
                is_bundle = draft.stage == "bundle"
                known[draft.identity] = replace(
                    draft,
                    base=f"variant:{column}" if is_bundle else f"{draft.base}-{column}",
                    component=column if is_bundle else draft.component,
                    inputs={role: known[producer.identity] for role, producer in draft.inputs.items()},
                )
                yield known[draft.identity]
            bundles[column] = known[draft.identity]
    sources = _sources(drafts)
    yield Draft(
        base="sheet:contact-sheet",
        stage="sheet",
        component="contact-sheet",
        parameters={
            "prompts": list(sheet.prompts),
            "columns": list(columns),
            "steps": sheet.steps,
            "guidance_scale": exact(sheet.guidance_scale),
            "seed": sheet.seed,
        },
        inputs={f"original-{folder}": source for folder, source in sources.items()} | bundles,
    )


def _variant(recipe: Recipe, bits: SheetBits | None) -> Recipe:
    """The recipe with nothing but what drawing needs, and the UNet palettized to `bits`."""
    return recipe.model_copy(
        update={
            "components": tuple(component for component in recipe.components if component in _DRAWS),
            "controlnets": (),
            "quantization": Quantization() if bits is None else Quantization(unet=bits),
            "unet": Unet(batch=recipe.unet.batch),
        }
    )


def _sources(drafts: tuple[Draft, ...]) -> Mapping[str, Draft]:
    """The checkpoint's folders that a pipeline of PyTorch needs."""
    return {draft.component: draft for draft in drafts if draft.stage == "source" and draft.component in _FOLDERS}
