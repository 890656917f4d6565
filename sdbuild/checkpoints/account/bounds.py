"""The first look at any configuration: no value that is read anywhere is beyond what a published network could have.

The account judges each setting by its class, before anything is converted. Sizes are read earlier than that, to plan
and to estimate: there, this check alone stands between a file and arithmetic. It asks of each setting whether its value
has a form that some class gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from sdbuild.checkpoints.account.networks import NETWORKS
from sdbuild.checkpoints.account.schedules import SETTINGS
from sdbuild.checkpoints.account.settings import Setting
from sdbuild.checkpoints.account.towers import TOWERS

_NESTED = ("text_config", "vision_config", "text_config_dict", "vision_config_dict")
# They change no network, but a preflight rule or an estimate asks for them.
_READ_BY_RULES = ("force_upcast", "sample_size")
_KINDS = {
    "UNet2DConditionModel": "UNet",
    "AutoencoderKL": "VAE",
    "SD3Transformer2DModel": "transformer",
    "StableDiffusionSafetyChecker": "safety checker",
    "ControlNetModel": "ControlNet",
    "T2IAdapter": "T2I-Adapter",
}


def out_of_bounds(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a configuration's values, a sentence each; values that nothing reads may be anything."""
    known = _settings()
    for name, value in config.items():
        if name in _NESTED:
            if value is not None and not isinstance(value, Mapping):
                yield f"`{name}` is {_shown(value)}, and must be an object"
            yield from out_of_bounds(value) if isinstance(value, Mapping) else ()
        elif (
            value is not None and (settings := known.get(name)) and not any(each.form.fits(value) for each in settings)
        ):
            yield f"`{name}` is {_shown(value)}, and must be {settings[0].form.name}"


def other_kind(listed: str | None, config: Mapping[str, Any]) -> str | None:
    """What a folder's configuration says that it holds, where that is another kind of network than is listed for it."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    held = config.get("_class_name") or first
    if listed is None or not isinstance(held, str) or _kind(held) == _kind(listed):
        return None
    return held


def _kind(name: str) -> str:
    """The kind of network that a class is; a CLIP model may be saved as any of its classes."""
    return next((kind for prefix, kind in (("CLIP", "CLIP"), ("T5", "T5")) if name.startswith(prefix)), None) or (
        _KINDS.get(name, name)
    )


@cache
def _settings() -> dict[str, list[Setting]]:
    """Name → what any class, or any scheduler, says of a setting of that name; none where some class leaves it open."""
    found: dict[str, list[Setting]] = {}
    for known in (*NETWORKS.values(), *TOWERS.values()):
        for name, setting in known.settings.items():
            found.setdefault(name, []).append(setting)
    for name, setting in SETTINGS.items():
        found.setdefault(name, []).append(setting)
    return {
        name: settings
        for name, settings in found.items()
        if name in _READ_BY_RULES or not all(each.harmless for each in settings)
    }


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
