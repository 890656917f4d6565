"""What a checkpoint's scheduler says of noise, and what of it the Swift package can draw with.

The package knows one schedule: betas from 0.00085 to 0.012, evenly spaced in their square roots, over 1000 steps
(Scheduler.swift and DPMSolverMultistepScheduler.swift of apple/ml-stable-diffusion at e12202c), and for SD 3 the
flow of DiscreteFlowScheduler.swift with a shift that the app sets. It reads none of that from a bundle.

In plain Python and with operations that IEEE 754 rounds alike everywhere, so that what is made of it has the same
bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import cos, pi, sqrt
from typing import Any

from sdbuild.families import FAMILIES, Family, Sampling

Config = Mapping[str, Any]

STEPS = 1000
"""Training steps of every Stable Diffusion, and of the package's schedulers."""

V_PREDICTION = "v_prediction"
FLOW_PREDICTION = "flow_prediction"

_FIRST_BETA, _LAST_BETA = 0.00085, 0.012
# What diffusers' schedulers assume where the file says nothing: these classes so, all others betas of Ho et al. 2020.
_STABLE: tuple[str, float, float] = ("scaled_linear", _FIRST_BETA, _LAST_BETA)
_BETWEEN: tuple[str, float, float] = ("linear", _FIRST_BETA, _LAST_BETA)
_DEFAULTS: Mapping[str | None, tuple[str, float, float]] = {
    # No class at all, then the checkpoint says nothing of noise.
    None: _STABLE,
    "LCMScheduler": _STABLE,
    "TCDScheduler": _STABLE,
    "HeunDiscreteScheduler": _BETWEEN,
    "KDPM2AncestralDiscreteScheduler": _BETWEEN,
    "KDPM2DiscreteScheduler": _BETWEEN,
}
_OTHERWISE = ("linear", 0.0001, 0.02)
# Below this share of signal the last step is noise alone. The released schedule ends at 0.0047, that of Ho et al. 2020
# at 0.00004; diffusers puts 2⁻²⁴ in the place of nothing.
_NO_SIGNAL = 1e-6
# How far the ratio of signal to noise may be off at any step, as a share of itself.
_TOLERANCE = 1e-3
# Of SD 3's scheduler: settings that move or reverse its steps in a way that the package does not.
_OTHER_FLOWS = (
    *("use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas"),
    *("stochastic_sampling", "shift_terminal"),
)


def cumulative_signal(scheduler: Config) -> tuple[float, ...] | None:
    """The share of signal ᾱ that is left at each training step, by a `scheduler_config.json`.

    Returns:
        One number a step, from nearly 1 down; None for schedules that are not made of betas (EDM, flow matching), and
        for those whose betas cannot be told.
    """
    if is_edm(scheduler) or is_flow(scheduler):
        return None
    betas = _betas(scheduler)
    if betas is None:
        return None
    shares, share = [], 1.0
    for beta in betas:
        share *= 1.0 - beta
        shares.append(share)
    return tuple(_without_signal_at_the_end(shares)) if scheduler.get("rescale_betas_zero_snr") else tuple(shares)


def is_edm(scheduler: Config) -> bool:
    """Whether steps are sigmas of Karras et al. 2022, and the network is told their logarithm."""
    return str(scheduler.get("_class_name", "")).startswith("EDM") or scheduler.get("timestep_type") == "continuous"


def is_flow(scheduler: Config) -> bool:
    """Whether noise is mixed in linearly, and the network predicts the direction (Esser et al. 2024)."""
    named = str(scheduler.get("_class_name", "")).startswith("FlowMatch")
    predicted = scheduler.get("prediction_type") == FLOW_PREDICTION
    return named or predicted or bool(scheduler.get("use_flow_sigmas"))


def ends_without_signal(scheduler: Config) -> bool:
    """Whether nothing of the picture is left at the last training step (zero terminal SNR, Lin et al. 2023)."""
    shares = cumulative_signal(scheduler)
    return shares is not None and shares[-1] < _NO_SIGNAL


def is_the_packages(scheduler: Config) -> bool:
    """Whether a checkpoint's betas are those that the Swift package computes with."""
    shares = cumulative_signal(scheduler)
    if shares is None or len(shares) != STEPS:
        return False
    expected = cumulative_signal({})
    assert expected is not None
    ratios = (_ratio(share) / _ratio(other) for share, other in zip(shares, expected, strict=True))
    return all(abs(ratio - 1) <= _TOLERANCE for ratio in ratios)


def departures(scheduler: Config, vae: Config, family: Family | None) -> dict[str, str]:
    """Why the Swift package cannot draw with a checkpoint's schedule and latents, however its app sets it.

    Args:
        scheduler: the checkpoint's `scheduler_config.json`.
        vae: the VAE's `config.json`.
        family: the checkpoint's family.

    Returns:
        Extension (a name that `bundle.json` and the linter know) → the reason, a clause.
    """
    shifts = family is not None and FAMILIES[family].autoencoder.shift_factor != 0
    flows = family is not None and FAMILIES[family].sampling is Sampling.FLOW
    found = dict(_departures_of_flow(scheduler) if flows else _departures_of_noise(scheduler))
    if not shifts and vae.get("shift_factor"):
        found["latent-shift"] = f"latents are shifted by {vae['shift_factor']:g}, which the package does for SD 3 alone"
    return found


def velocity_tables(scheduler: Config) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """α and σ of each training step, with which noise is told from the velocity: ε = α·v + σ·x.

    Returns:
        None where the checkpoint does not predict velocity, or where the package could not draw with the noise.

    Source: Salimans and Ho 2022, Progressive Distillation for Fast Sampling of Diffusion Models, appendix D.
    """
    if scheduler.get("prediction_type") != V_PREDICTION or not is_the_packages(scheduler):
        return None
    shares = cumulative_signal(scheduler)
    assert shares is not None
    return tuple(sqrt(share) for share in shares), tuple(sqrt(1.0 - share) for share in shares)


def _departures_of_noise(scheduler: Config) -> Iterator[tuple[str, str]]:
    if is_edm(scheduler):
        yield "edm", "it draws by sigmas of Karras et al. 2022, and the package by 1000 steps"
    elif is_flow(scheduler):
        yield "flow-matching", "it draws by flow matching, and the package does so for SD 3 alone"
    elif ends_without_signal(scheduler):
        yield (
            "zero-terminal-snr",
            "at its last step nothing of the picture is left (α = 0), and the package divides by α",
        )
    elif not is_the_packages(scheduler):
        yield "noise-schedule", f"it was trained with {_spelt(scheduler)}; the package knows {_spelt({})} alone"
    if scheduler.get("prediction_type") == "sample":
        yield "sample-prediction", "it predicts the picture, and the package's schedulers take noise"


def _departures_of_flow(scheduler: Config) -> Iterator[tuple[str, str]]:
    others = [name for name in _OTHER_FLOWS if scheduler.get(name)]
    steps = scheduler.get("num_train_timesteps", STEPS)
    if others or steps != STEPS or (scheduler and not is_flow(scheduler)):
        said = ", ".join(others) or (f"{steps} steps" if steps != STEPS else str(scheduler.get("_class_name")))
        yield "flow-schedule", f"its scheduler says {said}; the package shifts 1000 evenly spaced steps, and no more"


def _betas(scheduler: Config) -> list[float] | None:
    if (trained := scheduler.get("trained_betas")) is not None:
        return [float(beta) for beta in trained] if isinstance(trained, list | tuple) and trained else None
    steps, schedule, first, last = _said(scheduler)
    if schedule == "squaredcos_cap_v2":
        return [min(1 - _cosine(step + 1, steps) / _cosine(step, steps), 0.999) for step in range(steps)]
    spread = max(steps - 1, 1)
    if schedule == "scaled_linear":
        low, high = sqrt(first), sqrt(last)
        return [(low + (high - low) * step / spread) ** 2 for step in range(steps)]
    return [first + (last - first) * step / spread for step in range(steps)] if schedule == "linear" else None


def _said(scheduler: Config) -> tuple[int, str, float, float]:
    """Steps, the betas' schedule, and its first and last one, with the defaults of the scheduler's class."""
    schedule, first, last = _DEFAULTS.get(scheduler.get("_class_name"), _OTHERWISE)
    return (
        int(scheduler.get("num_train_timesteps") or STEPS),
        str(scheduler.get("beta_schedule") or schedule),
        float(first if scheduler.get("beta_start") is None else scheduler["beta_start"]),
        float(last if scheduler.get("beta_end") is None else scheduler["beta_end"]),
    )


def _cosine(step: int, steps: int) -> float:
    """ᾱ of Nichol and Dhariwal 2021, to 12 digits: the last ones of a cosine differ between systems."""
    return float(f"{cos((step / steps + 0.008) / 1.008 * pi / 2) ** 2:.12g}")


def _without_signal_at_the_end(shares: list[float]) -> Iterator[float]:
    """The schedule, moved and stretched so that the last step has no signal and the first its own (Lin et al. 2023)."""
    roots = [sqrt(share) for share in shares]
    first, last = roots[0], roots[-1]
    for root in roots:
        moved = (root - last) * first / (first - last)
        yield moved * moved


def _ratio(share: float) -> float:
    return share / max(1.0 - share, 1e-12)


def _spelt(scheduler: Config) -> str:
    steps, schedule, first, last = _said(scheduler)
    if scheduler.get("trained_betas") is not None:
        return "betas of its own"
    span = "" if schedule == "squaredcos_cap_v2" else f" from {first:g} to {last:g}"
    return f"{schedule} betas{span} over {steps} steps"
