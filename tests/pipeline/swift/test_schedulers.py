"""The package's schedulers against its formulas in double precision: samples and pictures after every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sdbuild.pipeline import RequestError
from sdbuild.pipeline.clients.swift.schedulers import DPMSolver, Flow, Pndm, add_noise, first_step, make
from tests.pipeline.swift import formulas

ALIKE_DB = 110.0
SHAPE = (1, 4, 6, 8)
KINDS = ("pndm", "linspace", "leading", "karras", "flow")
MIXED = np.random.RandomState(0).normal(size=(8, 8)) / 4


def model(sample: formulas.Doubles, time: float) -> formulas.Doubles:
    """Stands for a UNet: it depends on the sample and on the time, and no step cancels another."""
    return np.tanh(sample @ MIXED + math.sin(time / 300)) + 0.3 * sample


def noise(seed: int = 1) -> formulas.Doubles:
    return np.random.RandomState(seed).normal(size=SHAPE).astype(np.float32).astype(np.float64)


def expected(kind: str, steps: int) -> formulas.Run:
    if kind == "pndm":
        return formulas.pndm(model, noise(), steps)
    return formulas.flow(model, noise(), steps, 3.0) if kind == "flow" else formulas.dpm(model, noise(), steps, kind)


def run(kind: str, steps: int) -> formulas.Run:
    types = {"pndm": "pndmScheduler", "flow": "discreteFlowScheduler"}
    scheduler = make(types.get(kind, "dpmSolverMultistepScheduler"), steps, spacing=kind, shift=3.0)
    times = scheduler.times if isinstance(scheduler, Flow) else scheduler.time_steps
    found, sample = formulas.Run(), noise().astype(np.float32)
    for step, time in zip(scheduler.time_steps, times, strict=True):
        sample = scheduler.step(model(sample.astype(np.float64), time).astype(np.float32), step, sample)
        assert scheduler.denoised is not None
        found.times.append(time)
        found.samples.append(sample)
        found.pictures.append(scheduler.denoised)
    return found


def decibels(values: Any, reference: formulas.Doubles) -> float:
    assert values.dtype == np.float32
    return float(10 * np.log10(np.mean(reference**2) / np.mean((values - reference) ** 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_every_number_of_steps(kind: str) -> None:
    for steps in range(1 if kind in ("linspace", "leading") else 2, 51):
        ours, theirs = run(kind, steps), expected(kind, steps)
        np.testing.assert_allclose(ours.times, theirs.times, rtol=1e-5 if kind == "flow" else 0)
        found = [decibels(*pair) for pair in zip(ours.samples, theirs.samples, strict=True)]
        found += [decibels(*pair) for pair in zip(ours.pictures, theirs.pictures, strict=True)]
        assert min(found) >= ALIKE_DB, f"{kind}, {steps} steps: step {int(np.argmin(found)) % len(ours.times) + 1}"


def test_the_time_steps() -> None:
    assert Pndm(4).time_steps == (751, 501, 501, 251, 1)
    assert DPMSolver(4, "linspace").time_steps == (999, 749, 500, 250)
    # Halves go away from zero, and in single precision these are no halves.
    assert DPMSolver(6, "linspace").time_steps == (999, 833, 666, 500, 333, 167)
    assert DPMSolver(14, "linspace").time_steps[7] == 499
    assert DPMSolver(4, "leading").time_steps == (797, 598, 399, 200)
    assert DPMSolver(1, "linspace").time_steps == (999,)
    assert Flow(3).times == pytest.approx((1000, 751.12, 8.93), abs=0.1)


def test_karras_spacing_repeats_time_steps_from_45_on_and_stands_still_there() -> None:
    """Why the package's pictures at 50 steps are not those of diffusers, which counts its steps."""
    repeating = [steps for steps in range(2, 51) if len(set(DPMSolver(steps, "karras").time_steps)) < steps]
    assert repeating == list(range(45, 51))
    run_of_50 = run("karras", 50)
    assert run_of_50.times[-4:] == [2, 1, 1, 0]
    for number in (47, 48):
        np.testing.assert_array_equal(run_of_50.samples[number], run_of_50.samples[46])


@pytest.mark.parametrize(
    ("scheduler_type", "steps", "spacing", "message"),
    [
        ("pndmScheduler", 1, "linspace", "PNDM needs two steps"),
        ("dpmSolverMultistepScheduler", 1, "karras", "Karras spacing needs two"),
        ("dpmSolverMultistepScheduler", 999, "leading", "cannot take so many"),
        ("dpmSolverMultistepScheduler", 2500, "linspace", "cannot take so many"),
        ("discreteFlowScheduler", 1, "linspace", "flow matching needs two"),
    ],
)
def test_where_the_package_stops(scheduler_type: str, steps: int, spacing: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make(scheduler_type, steps, spacing=spacing, shift=3.0)


@pytest.mark.parametrize(("steps", "strength", "skipped"), [(20, 0.75, 5), (10, 0.7, 3), (50, 0.58, 21), (3, 0.999, 1)])
def test_a_pictures_first_step_is_counted_in_single_precision(steps: int, strength: float, skipped: int) -> None:
    assert first_step(steps, strength) == skipped


def test_a_picture_gets_as_much_noise_as_its_first_step_expects() -> None:
    scheduler, picture = DPMSolver(20, "leading"), noise(2)
    share = formulas.ALPHA_BAR[scheduler.time_steps[8]]
    wanted = np.sqrt(share) * picture + np.sqrt(1 - share) * noise()
    found = add_noise(scheduler, 20, picture.astype(np.float32), noise().astype(np.float32), 0.6)
    assert decibels(found, wanted) > ALIKE_DB
