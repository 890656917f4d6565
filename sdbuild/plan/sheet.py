"""The drafts of a recipe's contact sheet: a small bundle for each column, and the stage that draws with all of them."""

from collections.abc import Iterator
from dataclasses import replace

from sdbuild.plan.draft import TargetPlan
from sdbuild.plan.errors import PlanError
from sdbuild.plan.graph import Draft
from sdbuild.plan.numbers import exact
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import ContactSheet, Quantization, Unet
from sdbuild.recipe.vocabulary import Component, SheetBits
from sdbuild.stages.parameters import to_document
from sdbuild.stages.sheet import Parameters

_DRAWS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2, Component.UNET, Component.VAE_DECODER)
_WHOLE = "float16"


def sheet_drafts(plan: TargetPlan, sheet: ContactSheet, drafts: tuple[Draft, ...]) -> Iterator[Draft]:
    """What a contact sheet needs besides the target's own drafts, producers before consumers.

    Args:
        plan: the target whose models draw.
        sheet: what the recipe asks for.
        drafts: the target's own drafts; equal work is taken from there.

    Raises:
        PlanError: the recipe's models cannot draw as PyTorch does.
    """
    missing = [name for name in ("unet", "vae_decoder") if name not in plan.recipe.components]
    if missing:
        raise PlanError(f"contact_sheet: the recipe '{plan.recipe.name}' builds no {missing[0]}; add it to components")
    if plan.loras or plan.textual_inversions or plan.recipe.clip_skip:
        what = "LoRAs" if plan.loras else "textual inversions" if plan.textual_inversions else "clip_skip"
        raise PlanError(
            f"contact_sheet: the recipe '{plan.recipe.name}' has {what}, and PyTorch's pictures would be without "
            "it; leave out contact_sheet"
        )
    columns: dict[str, SheetBits | None] = {_WHOLE: None} | {f"{bits}-bits": bits for bits in sheet.bits}
    known = {draft.identity: draft for draft in drafts}
    bundles = {}
    for column, bits in columns.items():
        bare = replace(plan, controlnets=(), t2i_adapters=(), verify=False, compiler=None, _drafts={})
        variant = replace(bare, recipe=_variant(plan.recipe, bits))
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
    folders = plan.folders()
    yield from (draft for draft in folders.values() if draft.identity not in known)
    yield Draft(
        base="sheet:contact-sheet",
        stage="sheet",
        component="contact-sheet",
        parameters=to_document(
            Parameters(
                prompts=sheet.prompts,
                columns=tuple(columns),
                steps=sheet.steps,
                guidance_scale=exact(sheet.guidance_scale),
                seed=sheet.seed,
            )
        ),
        inputs={f"original-{name}": folder for name, folder in folders.items()} | bundles,
    )


def _variant(recipe: Recipe, bits: SheetBits | None) -> Recipe:
    """The recipe with nothing but what drawing needs, and the UNet palettized to `bits`."""
    return recipe.model_copy(
        update={
            "components": tuple(component for component in recipe.components if component in _DRAWS),
            "controlnets": (),
            "t2i_adapters": (),
            "quantization": Quantization() if bits is None else Quantization.model_validate({"unet": bits}),
            "unet": Unet(batch=recipe.unet.batch),
        }
    )
