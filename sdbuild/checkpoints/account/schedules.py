"""What is known of schedulers' configurations: the classes of diffusers that can draw here, and their settings.

Names are those of the classes' constructors in diffusers (a test compares them); what each is for stands in
https://huggingface.co/docs/diffusers/api/schedulers/overview. A setting of another scheduler is kept in `bundle.json`,
because a picture may be drawn with that other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.settings import (
    ANY,
    BOOLEAN,
    COUNT,
    INTEGER,
    NUMBER,
    NUMBERS,
    SHARE,
    TEXT,
    Class,
    Config,
    Setting,
    judge,
)

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("linspace", "leading", "trailing")

SETTINGS: dict[str, Setting] = {
    "algorithm_type": Setting(TEXT),
    "base_image_seq_len": Setting(INTEGER),
    "base_shift": Setting(NUMBER),
    "beta_end": Setting(SHARE),
    "beta_schedule": Setting(TEXT, None, BETA_SCHEDULES),
    "beta_start": Setting(SHARE),
    "clip_sample": Setting(BOOLEAN),
    "clip_sample_range": Setting(NUMBER),
    "disable_corrector": Setting(ANY),
    "dynamic_thresholding_ratio": Setting(NUMBER),
    "euler_at_final": Setting(BOOLEAN),
    "final_sigmas_type": Setting(TEXT, None, ("zero", "sigma_min")),
    "flow_shift": Setting(NUMBER),
    "interpolation_type": Setting(TEXT, None, ("linear", "log_linear")),
    "invert_sigmas": Setting(BOOLEAN),
    "lambda_min_clipped": Setting(ANY),
    "lower_order_final": Setting(BOOLEAN),
    "max_image_seq_len": Setting(INTEGER),
    "max_shift": Setting(NUMBER),
    "num_train_timesteps": Setting(COUNT),
    "original_inference_steps": Setting(COUNT),
    "predict_x0": Setting(BOOLEAN),
    "prediction_type": Setting(TEXT, None, PREDICTION_TYPES),
    "rescale_betas_zero_snr": Setting(BOOLEAN),
    "rho": Setting(NUMBER),
    "sample_max_value": Setting(NUMBER),
    "set_alpha_to_one": Setting(BOOLEAN),
    "shift": Setting(NUMBER),
    "shift_terminal": Setting(NUMBER),
    "sigma_data": Setting(NUMBER),
    "sigma_max": Setting(NUMBER),
    "sigma_min": Setting(NUMBER),
    "sigma_schedule": Setting(TEXT, None, ("karras", "exponential")),
    "skip_prk_steps": Setting(BOOLEAN),
    "solver_order": Setting(COUNT),
    "solver_p": Setting(ANY),
    "solver_type": Setting(TEXT),
    "steps_offset": Setting(INTEGER),
    "stochastic_sampling": Setting(BOOLEAN),
    "thresholding": Setting(BOOLEAN),
    "time_shift_type": Setting(TEXT, None, ("exponential", "linear")),
    "timestep_scaling": Setting(NUMBER),
    "timestep_spacing": Setting(TEXT, None, SPACINGS),
    "timestep_type": Setting(TEXT, None, ("discrete", "continuous")),
    "trained_betas": Setting(NUMBERS),
    "use_beta_sigmas": Setting(BOOLEAN),
    "use_dynamic_shifting": Setting(BOOLEAN),
    "use_exponential_sigmas": Setting(BOOLEAN),
    "use_flow_sigmas": Setting(BOOLEAN),
    "use_karras_sigmas": Setting(BOOLEAN),
    "use_lu_lambdas": Setting(BOOLEAN),
    "variance_type": Setting(TEXT),
}

_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
_SPACED = (*_BETAS, "timestep_spacing", "steps_offset")
_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_CLIPS = ("clip_sample", "clip_sample_range")
_THRESHOLDS = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
_SOLVER = ("solver_order", "algorithm_type", "solver_type", "lower_order_final")
_FLOW = ("use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type")
_EDM = (
    *("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "num_train_timesteps", "prediction_type", "rho"),
    "final_sigmas_type",
)
_DDIM = (*_SPACED, *_CLIPS, *_THRESHOLDS, "set_alpha_to_one", "rescale_betas_zero_snr")

SCHEDULERS: dict[str, tuple[str, ...]] = {
    "DDIMScheduler": _DDIM,
    "DDPMScheduler": (*_SPACED, *_CLIPS, *_THRESHOLDS, "variance_type", "rescale_betas_zero_snr"),
    "DEISMultistepScheduler": (*_SPACED, *_SIGMAS, *_THRESHOLDS, *_SOLVER, *_FLOW),
    "DPMSolverMultistepScheduler": (
        *(*_SPACED, *_SIGMAS, *_THRESHOLDS, *_SOLVER, *_FLOW, "euler_at_final", "use_lu_lambdas", "final_sigmas_type"),
        *("lambda_min_clipped", "variance_type", "rescale_betas_zero_snr"),
    ),
    "DPMSolverSinglestepScheduler": (
        *(*_BETAS, *_SIGMAS, *_THRESHOLDS, *_SOLVER, *_FLOW, "final_sigmas_type", "lambda_min_clipped"),
        "variance_type",
    ),
    "EDMDPMSolverMultistepScheduler": (*_EDM, *_THRESHOLDS, *_SOLVER, "euler_at_final"),
    "EDMEulerScheduler": _EDM,
    "EulerAncestralDiscreteScheduler": (*_SPACED, "rescale_betas_zero_snr"),
    "EulerDiscreteScheduler": (
        *(*_SPACED, *_SIGMAS, "interpolation_type", "sigma_min", "sigma_max", "timestep_type"),
        *("rescale_betas_zero_snr", "final_sigmas_type"),
    ),
    "FlowMatchEulerDiscreteScheduler": (
        *("num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len"),
        *("max_image_seq_len", "invert_sigmas", "shift_terminal", *_SIGMAS, "time_shift_type", "stochastic_sampling"),
    ),
    "HeunDiscreteScheduler": (*_SPACED, *_SIGMAS, *_CLIPS),
    "KDPM2AncestralDiscreteScheduler": (*_SPACED, *_SIGMAS),
    "KDPM2DiscreteScheduler": (*_SPACED, *_SIGMAS),
    "LCMScheduler": (*_DDIM, "original_inference_steps", "timestep_scaling"),
    "LMSDiscreteScheduler": (*_SPACED, *_SIGMAS),
    "PNDMScheduler": (*_SPACED, "skip_prk_steps", "set_alpha_to_one"),
    "TCDScheduler": (*_DDIM, "original_inference_steps", "timestep_scaling"),
    "UniPCMultistepScheduler": (
        *(*_SPACED, *_SIGMAS, *_THRESHOLDS, *_FLOW, "solver_order", "solver_type", "lower_order_final", "predict_x0"),
        *("disable_corrector", "solver_p", "final_sigmas_type", "rescale_betas_zero_snr", "sigma_min", "sigma_max"),
        "shift_terminal",
    ),
}
"""Class → its settings."""

FLOW = ("FlowMatchEulerDiscreteScheduler",)
"""The schedulers of models that predict a velocity from noise to picture, as SD 3 does."""


def judge_schedule(place: str, config: Config) -> Iterator[Entry]:
    """What becomes of each setting of a `scheduler_config.json`."""
    name = config.get("_class_name")
    name = name if name is None or isinstance(name, str) else repr(name)
    if name not in SCHEDULERS:
        close = get_close_matches(str(name), SCHEDULERS, n=1)
        hint = f"; did it mean `{close[0]}`?" if close else ""
        what = "is missing" if name is None else f"is {name!r}, which draws nothing here"
        reason = f"{what}{hint}; state the recipe's `scheduler`"
        yield Entry(place, Kind.SETTING, "_class_name", Use.WARNED, reason)
    own = SCHEDULERS.get(str(name), tuple(SETTINGS))
    for entry in judge(place, config, Class(str(name), SETTINGS)):
        others = entry.name in SETTINGS and entry.name not in own and entry.use is Use.USED
        if entry.name == "_class_name":
            if name in SCHEDULERS:
                yield Entry(place, Kind.SETTING, entry.name, Use.USED)
        elif others:
            reason = f"{name} does not read it; kept for drawing with another scheduler"
            yield Entry(place, Kind.SETTING, entry.name, Use.HARMLESS, reason)
        else:
            yield entry
