"""What a single-file checkpoint says beside its weights: how its UNet was trained, and in which latent space.

- `v_pred`: the UNet predicts velocity (Salimans and Ho 2022); `ztsnr` beside it: the betas are rescaled to zero
  terminal signal (Lin et al. 2023). Read so by ComfyUI, comfy/supported_models.py, SDXL.
- `edm_mean` and `edm_std`: Playground v2.5. Its latents have a mean and a spread and the factor 0.5, and it draws by
  EDM with sigmas from 0.002 to 80 on data of spread 0.5 (Karras et al. 2022). Read so by ComfyUI, and by diffusers,
  loaders/single_file_utils.py.
- `edm_vpred.sigma_max` and `.sigma_min`: CosXL. It predicts velocity at sigmas of this range on data of spread 1. Read
  so by ComfyUI, which draws it with comfy/model_sampling.py, ModelSamplingContinuousEDM.
- `modelspec.predict_key` and `modelspec.prediction_type` among the metadata: `epsilon` or `v`. Written by ComfyUI and
  by kohya-ss/sd-scripts; https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

PredictionType = Literal["epsilon", "v_prediction"]
Values = Callable[[str], tuple[float, ...]]
"""A small tensor's name → its numbers."""

V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
EDM_MEAN, EDM_STD = "edm_mean", "edm_std"
SIGMA_MIN, SIGMA_MAX = "edm_vpred.sigma_min", "edm_vpred.sigma_max"
MARKERS = (V_PREDICTION, ZERO_SNR, EDM_MEAN, EDM_STD, SIGMA_MIN, SIGMA_MAX)
"""Every tensor that is a sign and no weight."""

PREDICTION_KEYS = ("modelspec.predict_key", "modelspec.prediction_type")
_PREDICTIONS: Mapping[str, PredictionType] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}

_EDM_FACTOR = 0.5


class MarkerError(ValueError):
    """Markers that contradict each other or that hold no numbers; the message names them."""


@dataclass(frozen=True)
class Markers:
    """What a file's markers come to.

    Attributes:
        prediction_type: what the UNet predicts; None where nothing says it.
        scheduler: settings of `scheduler_config.json` that they fix.
        vae: settings of the VAE's `config.json` that they fix.
        used: the markers and metadata entries that said it.
    """

    prediction_type: PredictionType | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    used: tuple[str, ...] = ()


def read_markers(names: frozenset[str], metadata: Mapping[str, str], values: Values) -> Markers:
    """Read a file's markers.

    Args:
        names: every tensor's name.
        metadata: the file's words.
        values: reads a marker's numbers.

    Raises:
        MarkerError: a marker lacks its pair, holds other numbers than it must, or contradicts another.
    """
    there = tuple(name for name in MARKERS if name in names)
    stated = {key: metadata[key] for key in PREDICTION_KEYS if key in metadata}
    stated_types = {key: _PREDICTIONS[value.strip().lower()] for key, value in stated.items() if _is_known(value)}
    if EDM_MEAN in names or EDM_STD in names:
        return Markers(
            "epsilon", _EDM, _latents(names, values), (*there, *_agreeing(stated_types, "epsilon", EDM_MEAN))
        )
    if SIGMA_MAX in names or SIGMA_MIN in names:
        agreeing = _agreeing(stated_types, "v_prediction", SIGMA_MAX)
        return Markers("v_prediction", _continuous(names, values), {}, (*there, *agreeing))
    if V_PREDICTION in names:
        agreeing = _agreeing(stated_types, "v_prediction", V_PREDICTION)
        return Markers("v_prediction", _zero_snr(ZERO_SNR in names), {}, (*there, *agreeing))
    prediction = next(iter(stated_types.values()), None)
    if len(set(stated_types.values())) > 1:
        raise MarkerError(f"{' and '.join(stated_types)} contradict each other")
    return Markers(prediction, _zero_snr(ZERO_SNR in names), {}, (*there, *stated_types))


def _is_known(value: str) -> bool:
    return value.strip().lower() in _PREDICTIONS


_EDM: Mapping[str, Any] = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
}


def _zero_snr(stated: bool) -> dict[str, Any]:
    # Without any signal at the last step, a schedule that leaves that step out begins in the wrong place (Lin et al.
    # 2023, 3.3).
    return {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if stated else {}


def _latents(names: frozenset[str], values: Values) -> dict[str, Any]:
    if missing := [name for name in (EDM_MEAN, EDM_STD) if name not in names]:
        raise MarkerError(f"{missing[0]} is missing beside the other of {EDM_MEAN} and {EDM_STD}")
    mean, deviation = values(EDM_MEAN), values(EDM_STD)
    if len(mean) != len(deviation) or not all(map(isfinite, (*mean, *deviation))) or min(deviation, default=0) <= 0:
        raise MarkerError(f"{EDM_MEAN} and {EDM_STD} must hold a mean and a spread above 0 for each latent channel")
    return {"latents_mean": list(mean), "latents_std": list(deviation), "scaling_factor": _EDM_FACTOR}


def _continuous(names: frozenset[str], values: Values) -> dict[str, Any]:
    if SIGMA_MAX not in names:
        raise MarkerError(f"{SIGMA_MIN} without {SIGMA_MAX}")
    sigma_max = _number(SIGMA_MAX, values)
    sigma_min = _number(SIGMA_MIN, values) if SIGMA_MIN in names else 0.002
    if not 0 < sigma_min < sigma_max:
        raise MarkerError(f"{SIGMA_MIN} and {SIGMA_MAX} are {sigma_min} and {sigma_max}, which is no range")
    return {
        "_class_name": "EDMEulerScheduler",
        "sigma_data": 1.0,
        "sigma_max": sigma_max,
        "sigma_min": sigma_min,
        "sigma_schedule": "exponential",
    }


def _number(name: str, values: Values) -> float:
    numbers = values(name)
    if len(numbers) != 1 or not isfinite(numbers[0]):
        raise MarkerError(f"{name} must hold one number, it holds {len(numbers)}")
    return round(numbers[0], 6)


def _agreeing(stated_types: Mapping[str, PredictionType], prediction: PredictionType, marker: str) -> tuple[str, ...]:
    for key, value in stated_types.items():
        if value != prediction:
            raise MarkerError(f"{key} says {value}, and the marker {marker} says {prediction}")
    return tuple(stated_types)
