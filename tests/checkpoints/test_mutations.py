"""Nothing in a source changes silently: a sample of `tests.checkpoints.mutations`, and that it would notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdbuild.checkpoints.account import Account, Entry, Kind, Use
from sdbuild.checkpoints.account.sources import Asked, account_of
from tests.checkpoints import mutations
from tests.checkpoints.mutations import Change, Source, fault

CASES = 600


def test_each_change_is_told_or_known_to_be_harmless(tmp_path: Path) -> None:
    assert list(mutations.run(tmp_path, CASES, seed=14)) == []


SOURCE = Source("mine", Asked("unet", "mine"), {})
USED = Entry("a", Kind.TENSOR, "x", Use.USED)


@pytest.mark.parametrize(
    ("after", "change", "words"),
    [
        ([], Change("", gone="x"), "nothing says so"),
        ([USED], Change("", new="y"), "is in no account"),
        ([USED, Entry("a", Kind.TENSOR, "y", Use.USED)], Change("", new="y"), "nothing knows it"),
        ([USED], Change("", wrong="x"), "no value of its kind"),
        ([Entry("a", Kind.TENSOR, "x", Use.HARMLESS)], Change("", other="x"), "without a reason"),
        ([], Change("", other="x"), "is in no account"),
    ],
)
def test_a_silent_change_would_be_noticed(after: list[Entry], change: Change, words: str) -> None:
    assert words in (fault(SOURCE, Account("mine", (USED,)), Account("mine", tuple(after)), change) or "")


def said(component: str, files: dict[str, Any], folder: Path) -> dict[str, Use]:
    made = Source("mine", Asked(component, "mine", None, ("unet",)), files)
    return {entry.name: entry.use for entry in made.account(folder) if entry.use in (Use.WARNED, Use.REFUSED)}


def test_special_tokens_are_tokens_wherever_they_are_said(tmp_path: Path) -> None:
    files = {
        "special_tokens_map.json": {"pad_token": {"content": "!"}, "eos_token": {"id": 3}, "sorcery": 1},
        "tokenizer_config.json": {"bos_token": 3, "additional_special_tokens": ["<a>", 3]},
    }
    assert said("tokenizer", files, tmp_path) == {
        "eos_token": Use.REFUSED,
        "sorcery": Use.WARNED,
        "bos_token": Use.REFUSED,
        "additional_special_tokens": Use.REFUSED,
    }


@pytest.mark.parametrize("wrong", [{"architectures": {"CLIPTextModel": 1}}, {"architectures": ["Bert"]}])
def test_the_setting_that_names_another_class_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert said("text_encoder", {"config.json": wrong}, tmp_path) == {"architectures": Use.REFUSED}


def test_a_pair_alone_without_a_scale_is_told(tmp_path: Path) -> None:
    (kohya, _) = mutations.loras(tmp_path)
    weights = kohya.files["a.safetensors"]
    assert isinstance(weights, mutations.Weights)
    name = next(name for name in weights.tensors if name.endswith("alpha"))
    del weights.tensors[name]
    assert said("lora", {"a.safetensors": weights}, tmp_path) == {name: Use.WARNED}


@pytest.mark.parametrize("value", ["sorcery", {"to_q": "four"}])
def test_a_pattern_of_pefts_that_holds_no_numbers_is_refused(tmp_path: Path, value: Any) -> None:
    (_, peft) = mutations.loras(tmp_path)
    settings = peft.files["adapter_config.json"]
    assert isinstance(settings, dict)
    settings["rank_pattern"] = value
    paths = {}
    for name, content in peft.files.items():
        paths[name] = tmp_path / name
        if isinstance(content, mutations.Weights):
            content.write(paths[name])
    paths["adapter_config.json"].write_text(json.dumps(settings))
    (entry,) = account_of(peft.asked, paths).refused
    assert "rank_pattern is" in entry.reason
    assert "must be an object of numbers" in entry.reason
