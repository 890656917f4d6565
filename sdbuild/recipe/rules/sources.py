"""Rules on where models come from: pinned revisions and single files."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.families import FAMILIES
from sdbuild.recipe.references import ModelKind
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import Component


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
    if context.recipe.scheduler.prediction_type is not None:
        return
    if model.is_single_file and facts is not None and facts.family is not None and facts.prediction_type is None:
        said = FAMILIES[facts.family].single_file
        if said is None or not said.predictions:
            return
        help_ = (
            "write `prediction_type: epsilon` for a 512×512 model, `prediction_type: v_prediction` for a 768×768 one"
        )
        yield Finding(("model", "version"), "a single file of SD 2.x, and no `prediction_type`", help_)


@rule(
    "single-file-unsupported",
    reason="A tokenizer is no tensors, and a T2I-Adapter's file does not say how it is built.",
    source="the recipe language",
)
def _single_file_unsupported(context: Context) -> Iterator[Finding]:
    """A tokenizer and a T2I-Adapter are repositories or directories; all other models may be a single file."""
    for location, model in context.recipe.references():
        if location[0] not in ("t2i_adapters", "tokenizer"):
            continue
        if model.is_single_file:
            yield Finding((*location, "version"), "a single file here", "name a repository or a directory")
