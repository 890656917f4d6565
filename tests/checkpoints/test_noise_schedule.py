"""A checkpoint's noise schedule against diffusers' own, and what of it the Swift package cannot draw."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest

from sdbuild.checkpoints.account.schedules import SCHEDULERS
from sdbuild.checkpoints.noise_schedule import (
    cumulative_signal,
    departures,
    ends_without_signal,
    is_the_packages,
    velocity_tables,
)
from sdbuild.families import Family

STABLE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V = {"prediction_type": "v_prediction"}


def config(name: str = "DDIMScheduler", **changes: Any) -> dict[str, Any]:
    return {"_class_name": name, **STABLE, **changes}


SCHEDULES = [
    config(),
    config("PNDMScheduler"),
    config("DDPMScheduler", num_train_timesteps=500),
    config(beta_schedule="linear", beta_start=0.001, beta_end=0.02),
    config(beta_schedule="squaredcos_cap_v2"),
    config(rescale_betas_zero_snr=True),
    config("EulerDiscreteScheduler", rescale_betas_zero_snr=True, timestep_spacing="trailing", **V),
    config(trained_betas=[0.001 + 0.00001 * step for step in range(1000)]),
    # What the file leaves out is as the class has it.
    {"_class_name": "DDIMScheduler"},
    {"_class_name": "LCMScheduler"},
    {"_class_name": "TCDScheduler"},
    {"_class_name": "EulerAncestralDiscreteScheduler", "beta_schedule": "scaled_linear"},
]


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=lambda scheduler: "-".join(map(str, scheduler.values()))[:60])
def test_the_signal_is_diffusers(scheduler: dict[str, Any]) -> None:
    theirs = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    expected = theirs.alphas_cumprod.double().numpy()
    ours = cumulative_signal(scheduler)
    assert ours is not None
    # diffusers computes in float32, and puts the smallest number for none at all at the end.
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-6)


def test_every_scheduler_of_diffusers_that_is_told_nothing_is_read_as_it_reads_itself() -> None:
    for name in SCHEDULERS:
        if name.startswith(("EDM", "Flow")):
            continue
        expected = getattr(diffusers, name)().alphas_cumprod.double().numpy()
        np.testing.assert_allclose(cumulative_signal({"_class_name": name}), expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("scheduler", "extension"),
    [
        (config(beta_schedule="linear"), "noise-schedule"),
        (config(beta_end=0.0125), "noise-schedule"),
        (config(num_train_timesteps=999), "noise-schedule"),
        (config(beta_schedule="sigmoid"), "noise-schedule"),
        (config(trained_betas=[0.01] * 1000), "noise-schedule"),
        ({"_class_name": "DDIMScheduler"}, "noise-schedule"),
        (config(rescale_betas_zero_snr=True), "zero-terminal-snr"),
        (config(beta_schedule="squaredcos_cap_v2"), "zero-terminal-snr"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_max": 80.0, "sigma_data": 0.5}, "edm"),
        (config("EulerDiscreteScheduler", timestep_type="continuous"), "edm"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "flow-matching"),
        (config("DPMSolverMultistepScheduler", use_flow_sigmas=True), "flow-matching"),
        (config(prediction_type="sample"), "sample-prediction"),
    ],
)
def test_what_the_package_cannot_draw_is_named_with_its_reason(scheduler: dict[str, Any], extension: str) -> None:
    found = departures(scheduler, {}, Family.SD1)
    assert list(found) == [extension]
    assert len(found[extension]) > 20
    assert not departures(config(), {}, Family.SD1)


@pytest.mark.parametrize(
    "scheduler",
    [{}, config(), config("LCMScheduler"), {"_class_name": "LCMScheduler"}, config(**V), config(beta_end=0.0120001)],
)
def test_the_packages_own_schedule_is_told(scheduler: dict[str, Any]) -> None:
    assert is_the_packages(scheduler)
    assert not departures(scheduler, {"scaling_factor": 0.5}, Family.SDXL)


def test_the_reason_says_both_schedules() -> None:
    reason = departures(config(beta_schedule="linear", beta_end=0.02), {}, Family.SDXL)["noise-schedule"]
    assert "linear betas from 0.00085 to 0.02 over 1000 steps" in reason
    assert "scaled_linear betas from 0.00085 to 0.012 over 1000 steps alone" in reason


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"num_train_timesteps": 500}, "500 steps"),
        ({"shift_terminal": 0.02}, "shift_terminal"),
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
    ],
)
def test_of_sd3s_flow_the_app_can_set_the_shift_alone(changes: dict[str, Any], said: str) -> None:
    assert not departures(FLOW | {"shift": 1.5}, {"shift_factor": 0.0609}, Family.SD3)
    assert said in departures(FLOW | changes, {}, Family.SD3)["flow-schedule"]


def test_latents_that_need_more_than_one_factor_are_named() -> None:
    # Mean and spread are in the models.
    playground = {"latents_mean": [-1.6, 2.2, -0.2, 0.1], "latents_std": [8.4, 5.9, 6.6, 5.2], "scaling_factor": 0.5}
    assert list(departures(config(), playground, Family.SDXL)) == []
    assert list(departures(config(), {"shift_factor": 0.1159}, Family.SDXL)) == ["latent-shift"]


def test_velocity_is_turned_where_the_package_can_draw_with_the_noise() -> None:
    tables = velocity_tables(config(**V))
    assert tables is not None
    alphas, sigmas = np.array(tables)
    shares = diffusers.DDIMScheduler.from_config(config()).alphas_cumprod.double().numpy()
    np.testing.assert_allclose(alphas, np.sqrt(shares), rtol=1e-4)
    np.testing.assert_allclose(sigmas, np.sqrt(1 - shares), rtol=1e-4)
    for other in ({}, {"rescale_betas_zero_snr": True, **V}, {"beta_schedule": "linear", **V}):
        assert velocity_tables(config(**other)) is None
    assert velocity_tables({"_class_name": "EDMEulerScheduler", **V}) is None
    assert ends_without_signal(config(rescale_betas_zero_snr=True))
    assert not ends_without_signal(config())
