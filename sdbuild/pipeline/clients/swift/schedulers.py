"""The Swift package's schedulers: PNDM, DPM-Solver++ and flow matching, in single precision as there.

All assume the schedule that Stable Diffusion was trained with (scaled linear betas from 0.00085 to 0.012 in 1000 steps)
and, but for flow matching, a model that predicts noise. A step is found by the first place of its number in the list of
time steps, so that numbers which occur twice are stepped over: see `DPMSolver`.

Sources: Scheduler.swift, DPMSolverMultistepScheduler.swift and DiscreteFlowScheduler.swift of apple/ml-stable-diffusion
at e12202c; Liu et al. 2022 (PNDM), Lu et al. 2022 (DPM-Solver++), Karras et al. 2022 (spacing), Esser et al. 2024
(shift).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.errors import RequestError

Floats = NDArray[np.float32]

TRAINING_STEPS = 1000
SPACINGS = ("linspace", "leading", "karras")
_BETA_START, _BETA_END = 0.00085, 0.012
_ONE = np.float32(1)
_RHO = np.float32(7)  # of Karras et al.
_FEW_STEPS = 15  # below which DPM-Solver++ ends with two steps of first order
_ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


class Scheduler(Protocol):
    """One picture's way from noise to latents.

    Attributes:
        time_steps: training steps in the order in which they are drawn.
        denoised: what the last step took the picture without noise for; the decoder is given this, not the last sample.
    """

    time_steps: tuple[int, ...]
    denoised: Floats | None

    def step(self, output: Floats, time_step: int, sample: Floats) -> Floats:
        """The sample at the next time step.

        Args:
            output: what the model predicts at this one, guided.
            time_step: one of `time_steps`.
            sample: what it was given.
        """


def evenly(start: float, end: float, count: int) -> Floats:
    """Evenly spaced numbers in single precision, both ends among them."""
    first = np.float32(start)
    values: Floats = np.arange(count, dtype=np.float32) * ((np.float32(end) - first) / np.float32(count - 1)) + first
    return values


def cumulative_alphas() -> Floats:
    """The share of the picture in a sample at each training step."""
    roots = np.sqrt(np.array([_BETA_START, _BETA_END], np.float32))
    betas = np.square(evenly(roots[0], roots[1], TRAINING_STEPS))
    values: Floats = np.cumprod(_ONE - betas, dtype=np.float32)
    return values


def first_step(step_count: int, strength: float) -> int:
    """How many of the steps are left out when a picture is drawn anew by `strength`."""
    return max(step_count - int(np.float32(step_count) * np.float32(strength)), 0)


def add_noise(scheduler: Scheduler, step_count: int, original: Floats, noise: Floats, strength: float) -> Floats:
    """A picture's latents with as much noise as the first step that is left expects."""
    alpha = cumulative_alphas()[scheduler.time_steps[first_step(step_count, strength)]]
    return _weighted((np.sqrt(alpha), original), (np.sqrt(_ONE - alpha), noise))


class Pndm:
    """Pseudo linear multi-step, without Runge-Kutta steps."""

    def __init__(self, step_count: int) -> None:
        if step_count < 2:
            raise RequestError("steps=1: the Swift package's PNDM needs two steps at least; scheduler=dpm takes one")
        self._stride = TRAINING_STEPS // step_count
        forward = [index * self._stride + 1 for index in range(step_count)]
        self.time_steps = (*reversed([*forward[:-1], forward[-2], forward[-1]]),)
        self.denoised: Floats | None = None
        self._alphas = cumulative_alphas()
        self._steps = 0
        self._outputs: list[Floats] = []
        self._first: Floats | None = None

    def step(self, output: Floats, time_step: int, sample: Floats) -> Floats:
        """The sample at the next time step; the second step goes over the first one's way again."""
        previous = time_step - self._stride
        if self._steps == 1:
            assert self._first is not None
            previous, time_step, sample = time_step, time_step + self._stride, self._first
            combined = _weighted((0.5, output), (0.5, self._outputs[-1]))
        else:
            self._outputs = [*self._outputs[-3:], output]
            weights = _ADAMS_BASHFORTH.get(len(self._outputs))
            combined = output if weights is None else _weighted(*zip(weights, self._outputs[::-1], strict=True))
        self._first = sample
        self._steps += 1
        self.denoised = _without_noise(self._alphas[time_step], combined, sample)
        return self._transfer(sample, combined, self._alphas[time_step], self._alphas[max(previous, 0)])

    @staticmethod
    def _transfer(sample: Floats, output: Floats, alpha: np.float32, previous: np.float32) -> Floats:
        """Formula 9 of Liu et al."""
        beta, previous_beta = _ONE - alpha, _ONE - previous
        denominator = alpha * np.sqrt(previous_beta) + np.sqrt(alpha * beta * previous)
        return _weighted((np.sqrt(previous / alpha), sample), (-(previous - alpha) / denominator, output))


class DPMSolver:
    """DPM-Solver++ of second order by midpoints.

    With `karras`, times are rounded to whole training steps, and from 45 steps on some of the last coincide: 2, 1, 1,
    0. A step that is found at the place of an equal one before it goes nowhere, and the next one takes the sample for
    one with less noise than it has: that is why the package's pictures differ from those of diffusers there.
    """

    def __init__(self, step_count: int, spacing: str = "linspace") -> None:
        alphas = cumulative_alphas()
        if spacing == "karras":
            self.time_steps, sigmas = _karras(step_count, alphas)
            self._alpha = (_ONE / np.sqrt(_ONE + np.square(sigmas))).astype(np.float32)
            self._sigma = sigmas * self._alpha
        else:
            self.time_steps = _linspace(step_count) if spacing == "linspace" else _leading(step_count)
            self._alpha, self._sigma = np.sqrt(alphas), np.sqrt(_ONE - alphas)
        if len(self.time_steps) > 1 and self.time_steps[0] == self.time_steps[1]:
            raise RequestError(f"steps={step_count}: the Swift package cannot take so many with spacing {spacing}")
        # Double precision from here on, as there.
        self._lambda = (_log(self._alpha) - _log(self._sigma)).astype(np.float64)
        self.denoised: Floats | None = None
        self._before: Floats | None = None
        self._steps = 0
        self._by_place = spacing == "karras"

    def step(self, output: Floats, time_step: int, sample: Floats) -> Floats:
        """The sample at the next time step."""
        place, count = self.time_steps.index(time_step), len(self.time_steps)
        following = 0 if place == count - 1 else self.time_steps[place + 1]
        here, there = self._index(time_step), self._index(following)
        self._before = self.denoised
        self.denoised = ((sample - output * self._sigma[here]) / self._alpha[here]).astype(np.float32)
        advance = self._lambda[there] - self._lambda[here]
        rest = float(self._sigma[there]) / float(self._sigma[here])
        share = -float(self._alpha[there]) * (math.exp(-advance) - 1)
        self._steps += 1
        if self._steps == 1 or (count < _FEW_STEPS and place >= count - 2):
            return _weighted((rest, sample), (share, self.denoised))
        assert self._before is not None
        slope = advance / (self._lambda[here] - self._lambda[self._index(self.time_steps[place - 1])])
        change = _weighted((slope, self.denoised), (-slope, self._before))
        return _weighted((rest, sample), (share, self.denoised), (0.5 * share, change))

    def _index(self, time_step: int) -> int:
        """Where the tables have a time step: by its number, or with Karras' spacing by its first place, else at 0."""
        if not self._by_place:
            return time_step
        return self.time_steps.index(time_step) if time_step in self.time_steps else 0


class Flow:
    """Flow matching with shifted times, by Euler's method.

    Attributes:
        times: what the transformer of Stable Diffusion 3 is told: shifted times, no whole numbers.
    """

    def __init__(self, step_count: int, shift: float = 3.0) -> None:
        if step_count < 2:
            raise RequestError("steps=1: the Swift package's flow matching needs two steps at least")
        self._shift = np.float32(shift)
        training = np.float32(TRAINING_STEPS)
        ends = self._shifted(np.array([1, TRAINING_STEPS], np.float32) / training)
        even = evenly(ends[0], ends[1], step_count)[::-1]
        self.time_steps = (*map(int, even * training),)
        self._sigmas = self._shifted(even * training / training)
        self.times = (*map(float, self._sigmas * training),)
        self.denoised: Floats | None = None

    def step(self, output: Floats, time_step: int, sample: Floats) -> Floats:
        """The sample at the next time step; the last one goes as far again beyond, and nobody looks there."""
        place = self.time_steps.index(time_step)
        sigma = self._sigmas[place]
        self.denoised = (sample - output * sigma).astype(np.float32)
        step = self._sigmas[place + 1] - sigma if place + 1 < len(self._sigmas) else sigma
        following: Floats = sample + (sample - self.denoised) / sigma * step
        return following

    def _shifted(self, times: Floats) -> Floats:
        if self._shift == 1:
            return times
        values: Floats = self._shift * times / (_ONE + (self._shift - _ONE) * times)
        return values


def _linspace(step_count: int) -> tuple[int, ...]:
    return (*map(_rounded, evenly(0, TRAINING_STEPS - 1, step_count + 1)[:0:-1]),)


def _leading(step_count: int) -> tuple[int, ...]:
    stride = (TRAINING_STEPS - 1) // (step_count + 1)
    return (*(1 + index * stride for index in range(step_count, 0, -1)),)


def _karras(step_count: int, alphas: Floats) -> tuple[tuple[int, ...], Floats]:
    """Whole time steps, and the standard deviation of the noise at each, the last one twice."""
    if step_count < 2:
        raise RequestError("steps=1: the Swift package's Karras spacing needs two steps at least")
    all_sigmas = np.sqrt((_ONE - alphas) * (_ONE / alphas))
    logarithms = _log(all_sigmas)
    highest, lowest = _power(all_sigmas[[-1, 0]], _ONE / _RHO)
    sigmas = _power(highest + evenly(0, 1, step_count) * (lowest - highest), _RHO)
    return (*(_time_of(logarithm, logarithms) for logarithm in _log(sigmas)),), np.append(sigmas, sigmas[-1])


def _time_of(logarithm: np.float32, logarithms: Floats) -> int:
    """The training step with that much noise, rounded."""
    low = min(max(int(np.count_nonzero(logarithm - logarithms >= 0)) - 1, 0), TRAINING_STEPS - 2)
    below, above = logarithms[low], logarithms[low + 1]
    share = np.clip((below - logarithm) / (below - above), np.float32(0), _ONE)
    return _rounded((_ONE - share) * np.float32(low) + share * np.float32(low + 1))


def _rounded(value: np.float32) -> int:
    """Halves away from zero, as Swift rounds; NumPy rounds them to even numbers."""
    return math.floor(float(value) + 0.5)


def _log(values: Floats) -> Floats:
    """Natural logarithms, rounded once as the C library rounds; NumPy's own differ from one processor to the next."""
    return np.log(values.astype(np.float64)).astype(np.float32)


def _power(values: Floats, exponent: np.float32) -> Floats:
    """Powers, rounded once."""
    return np.power(values.astype(np.float64), float(exponent)).astype(np.float32)


def _without_noise(alpha: np.float32, output: Floats, sample: Floats) -> Floats:
    values: Floats = ((sample - output * np.sqrt(_ONE - alpha)) / np.sqrt(alpha)).astype(np.float32)
    return values


def _weighted(*terms: tuple[float | np.float32, Floats]) -> Floats:
    """A sum of weighted arrays, each weight rounded to single precision first."""
    total: Floats = np.zeros_like(terms[0][1], np.float32)
    for weight, values in terms:
        total += np.float32(weight) * values
    return total


def make(scheduler_type: str, step_count: int, *, spacing: str, shift: float) -> Pndm | DPMSolver | Flow:
    """The scheduler that `schedulerType` of the package's configuration names.

    Raises:
        RequestError: the package stops with so many steps.
    """
    if scheduler_type == "pndmScheduler":
        return Pndm(step_count)
    if scheduler_type == "discreteFlowScheduler":
        return Flow(step_count, shift)
    return DPMSolver(step_count, spacing)
