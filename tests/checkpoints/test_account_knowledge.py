"""What the account knows of configurations and tensors, against the libraries' own classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from sdbuild.builtin import tiny
from sdbuild.checkpoints.account.networks import NETWORKS
from sdbuild.checkpoints.account.schedules import SCHEDULERS, SETTINGS
from sdbuild.checkpoints.account.settings import ABOUT, Class
from sdbuild.checkpoints.account.sources import Asked, account_of
from sdbuild.checkpoints.account.tensors import network, resolved
from sdbuild.checkpoints.account.towers import CLIP_TEXT, CLIP_VISION, T5
from sdbuild.checkpoints.files import select_files
from tests.models.conftest import UNETS, save_controlnet, save_text_encoder, save_unet, save_vae


def constructor(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: each.default for key, each in parameters.items() if key not in ("self", "args", "kwargs")}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_settings_and_defaults_are_those_of_diffusers(name: str) -> None:
    known = {key: setting.default for key, setting in NETWORKS[name].settings.items()}
    theirs = {key: tuple(value) if isinstance(value, list) else value for key, value in constructor(name).items()}
    # Null as the default of a switch is false.
    for key in ("sample_size", "mid_block_only_cross_attention"):
        theirs.pop(key, None), known.pop(key, None)
    assert known == theirs


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_settings_are_those_of_diffusers(name: str) -> None:
    assert set(SCHEDULERS[name]) == set(constructor(name))


def test_no_setting_of_a_scheduler_belongs_to_none() -> None:
    assert set(SETTINGS) == {key for keys in SCHEDULERS.values() for key in keys}


@pytest.mark.parametrize(
    ("known", "config"),
    [(CLIP_TEXT, "CLIPTextConfig"), (CLIP_VISION, "CLIPVisionConfig"), (T5, "T5Config")],
)
def test_a_towers_settings_and_defaults_are_those_of_transformers(known: Class, config: str) -> None:
    theirs = getattr(transformers, config)().to_dict()
    used = {key: setting for key, setting in known.settings.items() if not setting.harmless}
    for key in ("text_config", "dense_act_fn", "is_gated_act"):  # nested, and derived from feed_forward_proj
        used.pop(key, None)
    assert {key: setting.default for key, setting in used.items()} == {key: theirs[key] for key in used}
    assert not {*theirs} - {*known.settings} - {*ABOUT}


class _Shapes:
    """Names and shapes of a library's own module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}


def wanted(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    known = network(class_name)
    assert known is not None
    return dict(known.wanted(resolved(config, known)))


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("save", [save_unet, save_controlnet])
def test_a_unets_tensors_are_told_from_its_configuration(
    tmp_path: Path, family: str, save: Callable[..., Path]
) -> None:
    if save is save_controlnet and family in ("no-mid-block", "plain-mid-block", "lcm"):
        pytest.skip("no ControlNet is so")
    import json

    config = json.loads((save(tmp_path, family) / "config.json").read_text())
    with torch.device("meta"):
        module = getattr(diffusers, config["_class_name"]).from_config(config)
    assert wanted(config["_class_name"], config) == _Shapes(module).shapes


@pytest.mark.parametrize("changes", [{}, {"use_quant_conv": False}, {"mid_block_add_attention": False}])
def test_a_vaes_tensors_are_told_from_its_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_vae(tmp_path, **changes)
    account = account_of(Asked("vae", "mine"), {path.name: path for path in tmp_path.iterdir()})
    assert account.refused == ()
    assert account.warned == ()


@pytest.mark.parametrize("projected", [False, True])
def test_a_text_encoders_tensors_are_told_from_its_configuration(tmp_path: Path, projected: bool) -> None:
    save_text_encoder(tmp_path, projected=projected)
    account = account_of(Asked("text_encoder", "mine"), {path.name: path for path in tmp_path.iterdir()})
    assert account.refused == ()
    assert account.warned == ()


@pytest.mark.parametrize("name", tiny.NAMES)
def test_nothing_in_a_builtin_checkpoint_is_refused_or_warned_of(tmp_path: Path, name: str) -> None:
    tiny.generate(name, tmp_path)
    listing = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    components = {path.parent.name for path in tmp_path.rglob("config.json")} - {tmp_path.name}
    components |= {"index"} if "model_index.json" in listing else set()
    components |= {kind for kind in ("controlnet", "t2i_adapter") if kind.split("_")[0] in name}
    for component in components:
        files = select_files(component, listing)
        account = account_of(Asked(component, name), {path: tmp_path / each for path, each in files.items()})
        assert account.refused == ()
        assert account.warned == ()
        assert account.counts["used"]
