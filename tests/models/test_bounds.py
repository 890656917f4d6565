"""The bounds of configurations hold every value that the libraries' own classes start with, and every published one."""

import inspect
from typing import Any

import diffusers
import pytest
from transformers import CLIPConfig, CLIPTextConfig, T5Config

from sdbuild.checkpoints.account.bounds import other_kind, out_of_bounds
from sdbuild.checkpoints.published import T2I_ADAPTERS
from sdbuild.families import FAMILIES

NETWORKS = ("UNet2DConditionModel", "AutoencoderKL", "ControlNetModel", "SD3Transformer2DModel", "T2IAdapter")
SCHEDULERS = sorted(name for name in dir(diffusers.schedulers) if name.endswith("DiscreteScheduler"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_defaults(name: str) -> None:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.items()
    stated = {key: value.default for key, value in parameters if value.default is not inspect.Parameter.empty}
    assert list(out_of_bounds({key: list(v) if isinstance(v, tuple) else v for key, v in stated.items()})) == []


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_defaults(name: str) -> None:
    assert list(out_of_bounds(dict(getattr(diffusers, name)().config))) == []


@pytest.mark.parametrize("config", [CLIPConfig(), CLIPTextConfig(), T5Config()], ids=["clip", "text", "t5"])
def test_a_text_encoders_defaults(config: Any) -> None:
    assert list(out_of_bounds(config.to_dict())) == []


def test_published_configurations() -> None:
    published = [each.published for each in FAMILIES.values()]
    folders = [stated for each in published for stated in (each.configs, *each.versions.values())]
    found = [dict(config) for stated in folders for config in stated.values()]
    assert len(found) > len(FAMILIES)
    for config in [*found, *T2I_ADAPTERS.values()]:
        assert list(out_of_bounds(config)) == []


def test_a_clip_model_may_be_saved_as_any_of_its_classes() -> None:
    assert other_kind("CLIPTextModel", {"architectures": ["CLIPModel"]}) is None
    assert other_kind("CLIPTextModelWithProjection", {"architectures": ["CLIPTextModel"]}) is None
    assert other_kind("UNet2DConditionModel", {}) is None
    assert other_kind("CLIPTextModel", {"architectures": ["T5EncoderModel"]}) == "T5EncoderModel"
    assert other_kind("UNet2DConditionModel", {"_class_name": "UNet3DConditionModel"}) == "UNet3DConditionModel"
