"""What peft's `adapter_config.json` says of an adapter, and which of it changes the weights.

The same settings stand in the metadata of files that diffusers writes (`lora_adapter_metadata`). Every setting that is
stated is one that is used here, one that only concerns training, or one that is refused by name.

Source: peft's `LoraConfig`, `LoHaConfig`, `LoKrConfig` and `IA3Config`; the first pattern that matches counts
(`get_pattern_key`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import sqrt
from typing import Any

from sdbuild.checkpoints.account.settings import BOOLEAN, COUNT, NUMBER, TEXT, TEXTS, Form
from sdbuild.models.errors import ModelError

METADATA = "lora_adapter_metadata"

_KINDS = ("LORA", "LOHA", "LOKR", "IA3")
_USED = ("peft_type", "r", "lora_alpha", "alpha", "use_rslora", "rank_pattern", "alpha_pattern", "feedforward_modules")
# They say what was trained and how; the result is in the tensors.
OF_TRAINING = (
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "decompose_both", "decompose_factor",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "init_ia3_weights", "init_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_bias",
    "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "module_dropout", "modules_to_save",
    "peft_version", "qalora_group_size", "rank_dropout", "rank_dropout_scale", "revision", "runtime_config",
    "target_modules", "task_type", "use_dora", "use_effective_conv2d", "velora_config",
)  # fmt: skip
_ALPHA = 8  # peft's default
# Ways to begin that take something out of the checkpoint's own weights, so that the adapter alone is not the change.
_HARMLESS_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal", "lycoris", "default")


_PATTERNS = Form(
    "an object of numbers", lambda value: isinstance(value, Mapping) and all(map(NUMBER.fits, value.values()))
)
_FORMS = {
    "r": COUNT, "lora_alpha": NUMBER, "alpha": NUMBER, "use_rslora": BOOLEAN, "use_dora": BOOLEAN,
    "rank_pattern": _PATTERNS, "alpha_pattern": _PATTERNS,
    "feedforward_modules": Form("a pattern or a list of names", lambda value: TEXT.fits(value) or TEXTS.fits(value)),
}  # fmt: skip


class Settings:
    """The settings of one adapter.

    Args:
        values: what is said; empty for files that say nothing.
        label: what messages call the place.

    Raises:
        ModelError: a setting that changes the result in a way that is not known here.
    """

    def __init__(self, values: Mapping[str, Any], label: str) -> None:
        self._values, self._label = values, label
        kind = values.get("peft_type")
        if kind not in (None, *_KINDS):
            raise ModelError(f"{label}: peft_type is {kind}, which cannot be fused; known are {', '.join(_KINDS)}.")
        strange = [
            name for name, value in values.items() if name not in (*_USED, *OF_TRAINING) and value not in _NOTHING
        ]
        if strange:
            said = ", ".join(f"{name}: {json.dumps(values[name])}" for name in sorted(strange))
            raise ModelError(f"{label}: says {said}, and what that means for the weights is not known here.")
        for name, form in _FORMS.items():
            if values.get(name) is not None and not form.fits(values[name]):
                raise ModelError(f"{label}: {name} is {json.dumps(values[name])}, and must be {form.name}.")
        beginning = values.get("init_lora_weights")
        if beginning not in _HARMLESS_BEGINNINGS:
            raise ModelError(
                f"{label}: init_lora_weights is {beginning}, which takes a part out of the checkpoint's own weights: "
                "the adapter alone does not say the change. Save it with peft's "
                "`path_initial_model_for_weight_conversion`."
            )

    def __bool__(self) -> bool:
        return bool(self._values)

    @property
    def uses_dora(self) -> bool:
        """Whether every pair needs a magnitude."""
        return bool(self._values.get("use_dora"))

    def scale(self, module: str, rank: int | None) -> float | None:
        """α/r, or α/√r; None where nothing is said.

        Args:
            module: the module's name in the component.
            rank: the tensors' own; None for kinds without one, for which it is what the settings say.

        Raises:
            ModelError: the settings speak of another rank than the tensors have.
        """
        default = self._values.get("lora_alpha", self._values.get("alpha", _ALPHA if self._values else None))
        alpha = self._pattern("alpha_pattern", module, default)
        stated = self._pattern("rank_pattern", module, self._values.get("r"))
        if rank is not None and stated is not None and int(stated) != rank:
            raise ModelError(f"{self._label}: says rank {stated} for {module}, whose tensors have rank {rank}.")
        rank = rank if rank is not None else stated
        if alpha is None or not rank:
            return None
        return float(alpha) / (sqrt(rank) if self._values.get("use_rslora") else float(rank))

    def is_feed_forward(self, module: str) -> bool | None:
        """For (IA)³, whether a module's inputs are scaled; None where nothing is said."""
        stated = self._values.get("feedforward_modules")
        if stated is None:
            return None
        if isinstance(stated, str):
            return re.fullmatch(stated, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in stated)

    def _pattern(self, name: str, module: str, default: Any) -> Any:
        """The value of the first pattern that matches."""
        for pattern, value in (self._values.get(name) or {}).items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error as error:
                raise ModelError(f"{self._label}: {name} holds {pattern!r}, which is no pattern ({error}).") from error
        return default


_NOTHING: tuple[Any, ...] = (None, False, {}, [], "")


def read_settings(text: str | bytes, label: str) -> Settings:
    """The settings in an `adapter_config.json`."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{label}: is not JSON ({error}). Download it again.") from error
    if not isinstance(values, Mapping):
        raise ModelError(f"{label}: is no JSON object. Download it again.")
    return Settings(values, label)


def settings_by_component(metadata: Mapping[str, str], label: str) -> dict[str, Settings]:
    """The settings that diffusers writes beside the tensors, by component; `""` for a file of one component."""
    if METADATA not in metadata:
        return {}
    where = f"{label}: {METADATA} in its metadata"
    try:
        flat = json.loads(metadata[METADATA])
    except ValueError as error:
        raise ModelError(f"{where} is not JSON ({error}). Download it again.") from error
    if not isinstance(flat, Mapping):
        raise ModelError(f"{where} is no JSON object. Download it again.")
    found: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        component, _, name = key.rpartition(".")
        found.setdefault(component, {})[name] = value
    return {component: Settings(values, f"{where}, {component}") for component, values in found.items()}
