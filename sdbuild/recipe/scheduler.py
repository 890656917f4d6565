"""The schedule that a recipe states, by the names of diffusers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from sdbuild.recipe.part import Part

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SchedulerClass = Literal[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]
"""The schedulers of diffusers that draw here: the keys of `sdbuild.checkpoints.account.schedules.SCHEDULERS`."""


class Scheduler(Part):
    """What the checkpoint's `scheduler_config.json` is to say: each setting that is named takes its place.

    For checkpoints whose files say nothing or something wrong: single files, and what was distilled or fine-tuned
    without them. It goes into `bundle.json`, and pictures are drawn by it.
    """

    class_name: SchedulerClass | None = Field(
        default=None, alias="_class_name", description="The scheduler's class in diffusers."
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = Field(
        default=None, description="What the UNet predicts: the noise, the velocity, or the picture itself."
    )
    num_train_timesteps: int | None = Field(default=None, ge=1, le=100_000, description="Steps of the training.")
    beta_start: Positive | None = Field(default=None, description="The first step's share of noise.")
    beta_end: Positive | None = Field(default=None, description="The last step's share of noise.")
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] | None = Field(
        default=None, description="How the shares go from the first to the last."
    )
    rescale_betas_zero_snr: bool | None = Field(
        default=None, description="Whether no signal is left at the last step (Lin et al. 2023)."
    )
    timestep_spacing: Literal["linspace", "leading", "trailing"] | None = Field(
        default=None, description="Which steps are taken: `trailing` for Turbo, Lightning, Hyper and zero signal."
    )
    steps_offset: int | None = Field(default=None, ge=0, le=10, description="What `leading` adds to each step.")
    use_karras_sigmas: bool | None = Field(default=None, description="Sigmas as Karras et al. 2022 space them.")
    use_exponential_sigmas: bool | None = Field(default=None, description="Sigmas evenly spaced in their logarithms.")
    use_beta_sigmas: bool | None = Field(default=None, description="Sigmas spaced by a beta distribution.")
    final_sigmas_type: Literal["zero", "sigma_min"] | None = Field(default=None, description="What the last sigma is.")
    sigma_min: Positive | None = Field(default=None, description="The smallest sigma.")
    sigma_max: Positive | None = Field(default=None, description="The largest sigma.")
    sigma_data: Positive | None = Field(default=None, description="The spread of the data, for EDM's schedulers.")
    sigma_schedule: Literal["karras", "exponential"] | None = Field(
        default=None, description="How EDM's schedulers space sigmas."
    )
    rho: Positive | None = Field(default=None, description="The exponent of `sigma_schedule: karras`.")
    shift: Positive | None = Field(default=None, description="Towards noise, for SD 3's flow.")
    original_inference_steps: int | None = Field(
        default=None, ge=1, le=1000, description="Of the schedule that a consistency model was distilled from."
    )
    timestep_scaling: Positive | None = Field(default=None, description="Of a consistency model's boundary.")
    solver_order: Literal[1, 2, 3] | None = Field(default=None, description="The solver's order.")
    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"] | None = Field(
        default=None, description="The solver's formula."
    )
    solver_type: Literal["midpoint", "heun", "bh1", "bh2", "logrho"] | None = Field(
        default=None, description="The solver's second step."
    )
    lower_order_final: bool | None = Field(default=None, description="Whether the last steps are of lower order.")
    clip_sample: bool | None = Field(default=None, description="Whether predicted pictures are clipped.")
    set_alpha_to_one: bool | None = Field(default=None, description="Whether the step after the last has no noise.")
    skip_prk_steps: bool | None = Field(default=None, description="Whether PNDM leaves out its Runge-Kutta steps.")

    def named(self) -> dict[str, Any]:
        """The settings that the recipe names, by the names of diffusers."""
        return self.model_dump(by_alias=True, exclude_none=True)


def as_text(settings: dict[str, Any]) -> str:
    """Settings as key documents hold them, where a number must not be written in two ways."""
    exact = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }
    return json.dumps(exact, sort_keys=True)
