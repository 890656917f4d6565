"""The package's schedulers once more, from docs/reference/client.md alone and in double precision.

A whole run is one function here: a list of time steps is made first, and then the samples, from scalars that are worked
out for each step from the training schedule. Single precision decides how times are rounded to whole numbers, and is
used for that alone: at 14 steps 499.49997 rounds to another number than 499.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Model = Callable[[Doubles, float], Doubles]

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHA_BAR = np.exp(np.cumsum(np.log1p(-BETAS)))
SINGLE = np.multiply.accumulate(
    np.float32(1)
    - (
        np.sqrt(np.float32(0.00085))
        + np.float32(range(1000)) * ((np.sqrt(np.float32(0.012)) - np.sqrt(np.float32(0.00085))) / np.float32(999))
    )
    ** 2
)


@dataclass
class Run:
    """Samples after each step, and what each step took the picture for."""

    times: list[float] = field(default_factory=list)
    samples: list[Doubles] = field(default_factory=list)
    pictures: list[Doubles] = field(default_factory=list)


def half_up(value: float) -> int:
    return int(np.floor(value + 0.5))


def karras(levels: Doubles, steps: int) -> Doubles:
    low, high = levels[0] ** (1 / 7), levels[-1] ** (1 / 7)
    return (high + np.arange(steps) / (steps - 1) * (low - high)) ** 7


def pndm(model: Model, noise: Doubles, steps: int) -> Run:
    ratio = 1000 // steps
    up = [1 + ratio * k for k in range(steps)]
    order = [up[-1], up[-2], *up[-2::-1]]
    run, x, kept = Run(), noise, []
    start = x
    for number, t in enumerate(order):
        predicted = model(x, t)
        if number == 1:
            predicted, origin, here, there = (predicted + kept[0]) / 2, start, t + ratio, t
        else:
            kept.insert(0, predicted)
            kept = kept[:4]
            weights = [[1], [1.5, -0.5], [23 / 12, -4 / 3, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -3 / 8]]
            predicted = sum(w * e for w, e in zip(weights[len(kept) - 1], kept, strict=True))
            origin, here, there = x, t, max(t - ratio, 0)
        a, b = ALPHA_BAR[here], ALPHA_BAR[there]
        picture = (origin - np.sqrt(1 - a) * predicted) / np.sqrt(a)
        x = np.sqrt(b / a) * origin - (b - a) * predicted / (a * np.sqrt(1 - b) + np.sqrt(a * (1 - a) * b))
        run.times.append(t)
        run.samples.append(x)
        run.pictures.append(picture)
    return run


def dpm(model: Model, noise: Doubles, steps: int, spacing: str) -> Run:
    noise_to_picture = np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)
    if spacing == "linspace":
        stride = np.float32(999) / np.float32(steps)
        times = [half_up(np.float32(k) * stride) for k in range(steps, 0, -1)]
        levels = {t: noise_to_picture[t] for t in (*times, 0)}
    elif spacing == "leading":
        times = [1 + k * (999 // (steps + 1)) for k in range(steps, 0, -1)]
        levels = {t: noise_to_picture[t] for t in (*times, 0)}
    else:
        rounded = np.sqrt((1 - SINGLE) / SINGLE).astype(np.float64)
        places = np.interp(np.log(karras(rounded, steps)), np.log(rounded), np.arange(1000))
        wanted = karras(noise_to_picture, steps)
        times = [half_up(place) for place in places]
        levels = {}
        for t, level in zip(times, wanted, strict=True):
            levels.setdefault(t, level)
        levels.setdefault(0, wanted[0])
    run, x = Run(), noise
    for number, t in enumerate(times):
        first = times.index(t)
        target = times[first + 1] if first + 1 < steps else 0
        alpha, alpha_next = (1 / np.sqrt(1 + levels[time] ** 2) for time in (t, target))
        sigma, sigma_next = levels[t] * alpha, levels[target] * alpha_next
        picture = (x - sigma * model(x, t)) / alpha
        run.pictures.append(picture)
        estimate = picture
        if number and not (steps < 15 and first >= steps - 2):
            h = np.log(levels[t] / levels[target])
            h_before = np.log(levels[times[first - 1]] / levels[t])
            estimate = picture + h / h_before / 2 * (picture - run.pictures[-2])
        x = sigma_next / sigma * x + (alpha_next - sigma_next / sigma * alpha) * estimate
        run.times.append(t)
        run.samples.append(x)
    return run


def flow(model: Model, noise: Doubles, steps: int, shift: float) -> Run:
    def shifted(u: float) -> float:
        return shift * u / (1 + (shift - 1) * u)

    bottom = shifted(1 / 1000)
    levels = [shifted(bottom + (1 - bottom) * k / (steps - 1)) for k in range(steps - 1, -1, -1)]
    run, x = Run(), noise
    for level, following in zip(levels, [*levels[1:], 2 * levels[-1]], strict=True):
        velocity = model(x, 1000 * level)
        run.pictures.append(x - level * velocity)
        x = x + (following - level) * velocity
        run.times.append(1000 * level)
        run.samples.append(x)
    return run
