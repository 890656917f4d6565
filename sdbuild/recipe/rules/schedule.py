"""Rules on the schedule that a recipe states: settings that would have no effect are mistakes."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.account.schedules import FLOW, SCHEDULERS
from sdbuild.recipe.rules.rule import Context, Finding, rule

_CLASS = "_class_name"


@rule(
    "prediction-type-without-effect",
    reason="The pipeline's own UNet decides how pictures are drawn; what other checkpoints say of theirs is not read.",
    source="the recipe language",
)
def _prediction_type_without_effect(context: Context) -> Iterator[Finding]:
    """Only the pipeline's model has a `prediction_type`."""
    for location, reference in context.recipe.references():
        if location != ("model",) and getattr(reference, "prediction_type", None) is not None:
            place = (*location, "prediction_type")
            yield Finding(place, "a `prediction_type` here changes nothing", "remove it, or state it for `model`")


@rule(
    "prediction-type-stated-twice",
    reason="Two statements that contradict each other cannot both hold.",
    source="the recipe language",
)
def _prediction_type_twice(context: Context) -> Iterator[Finding]:
    """`model.prediction_type` and `scheduler.prediction_type` say the same."""
    model, scheduler = context.recipe.model.prediction_type, context.recipe.scheduler.prediction_type
    if None not in (model, scheduler) and model != scheduler:
        place = ("scheduler", "prediction_type")
        yield Finding(place, f"`{scheduler}`, and `model.prediction_type` is `{model}`", "state one of them")


@rule(
    "scheduler-setting-without-effect",
    reason="diffusers' schedulers pass over settings that they do not have.",
    source="https://huggingface.co/docs/diffusers/api/schedulers/overview",
)
def _setting_without_effect(context: Context) -> Iterator[Finding]:
    """Each setting of `scheduler` is one that the scheduler's class reads."""
    stated = context.recipe.scheduler.named()
    own = context.facts.scheduler if context.facts is not None else {}
    name = stated.get(_CLASS) or own.get(_CLASS)
    if name not in SCHEDULERS:
        return
    for setting in stated:
        if setting != _CLASS and setting not in SCHEDULERS[name]:
            readers = [other for other, settings in SCHEDULERS.items() if setting in settings][:3]
            help_ = f"remove it, or state `{_CLASS}: {readers[0]}`" if readers else "remove it"
            yield Finding(("scheduler", setting), f"{name} does not read `{setting}`", help_)


@rule(
    "scheduler-of-another-kind",
    reason="SD 3 was trained to follow a flow from noise to picture, all others to remove noise step by step.",
    source="Esser et al. 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2",
)
def _another_kind(context: Context) -> Iterator[Finding]:
    """SD 3 is drawn by flow matching, and no other family is."""
    name = context.recipe.scheduler.class_name
    family = context.facts.family if context.facts is not None else None
    if name is None or family is None:
        return
    if (name in FLOW) != (family == "sd3"):
        wanted = FLOW[0] if family == "sd3" else "a scheduler without `Flow` in its name"
        yield Finding(("scheduler", _CLASS), f"`{name}` for {family}", f"write {wanted}")
