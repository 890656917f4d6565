"""Rules on what the Swift package cannot be told: schedules, latents, and sizes of pictures. They warn."""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.checkpoints.noise_schedule import V_PREDICTION, departures
from sdbuild.families import XL_FAMILIES
from sdbuild.recipe.diagnostics import Severity
from sdbuild.recipe.rules.rule import Context, Finding, rule
from sdbuild.recipe.vocabulary import Component

_DENOISERS = (Component.UNET, Component.TRANSFORMER)


@rule(
    "schedule-not-of-the-swift-package",
    reason="The package's schedulers know noise, betas from 0.00085 to 0.012 (scaled linear, 1000 steps) and one "
    "factor for latents, and read nothing of a bundle: with another schedule they draw something else.",
    source="the Swift sources of apple/ml-stable-diffusion, Scheduler, DPMSolverMultistepScheduler and "
    "DiscreteFlowScheduler",
    severity=Severity.WARNING,
)
def _schedule(context: Context) -> Iterator[Finding]:
    """The checkpoint was trained with the noise schedule and the latents that the Swift package knows."""
    facts = context.facts
    if facts is None or facts.family is None or not {*_DENOISERS} & {*context.recipe.components}:
        return
    vae = {} if context.recipe.vae is not None else facts.config("vae")
    # Of a published checkpoint whose files are not here yet, what a recipe leaves out is not known.
    stated = {**facts.scheduler, **context.recipe.scheduler.named()} if facts.scheduler else {}
    found = departures(stated, vae, facts.family)
    for extension, reason in found.items():
        message = f"the Swift package cannot draw with this checkpoint: {reason}"
        help_ = f"draw it with a scheduler of your app's own; `bundle.json` says `{extension}` under `extensions`"
        yield Finding(("model", "version"), message, help_)
    if found and facts.prediction_type == V_PREDICTION and context.recipe.unet.prediction == "epsilon":
        help_ = "take the UNet's output for the velocity; `bundle.json` says `v-prediction` under `extensions`"
        yield Finding(("model", "version"), "its velocity is left as it is, because noise would not help", help_)


@rule(
    "sdxl-not-square",
    reason="SDXL is told a picture's height and width (Podell et al. 2023, 2.2); the package has one number for both.",
    source="the Swift sources of apple/ml-stable-diffusion, StableDiffusionXLPipeline",
    severity=Severity.WARNING,
)
def _not_square(context: Context) -> Iterator[Finding]:
    """SDXL's pictures are square."""
    latent = context.recipe.latent
    if context.family in XL_FAMILIES and latent.height != latent.width:
        message = f"pictures of {latent.picture}: the Swift package tells SDXL one number for both sides"
        help_ = "`bundle.json` gives it the longer side, which draws nearly the same; square pictures are told exactly"
        yield Finding(("latent",), message, help_)
