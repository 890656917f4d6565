"""The difference of two key documents, as typed reasons."""

from typing import Any

from sdbuild.plan.reasons import (
    FormatChanged,
    InputChanged,
    InputsDropped,
    InputWillRun,
    NeverBuilt,
    ParameterChanged,
    StageVersionChanged,
    ToolChanged,
    differences,
)

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "stage": "quantize",
    "stage_version": 2,
    "parameters": {"bits": 6, "latent": {"height": 64, "width": 64}},
    "inputs": {"package": "aa"},
    "tools": {"numpy": "2.1"},
}
PRODUCERS = {"package": "convert:unet"}


def compare(**changes: Any) -> tuple[Any, ...]:
    return differences(DOCUMENT, {**DOCUMENT, **changes}, PRODUCERS, {})


def test_nothing_changed() -> None:
    assert compare() == ()


def test_each_change_has_its_type_and_its_sentence() -> None:
    (bits,) = compare(parameters={**DOCUMENT["parameters"], "bits": 4})
    assert bits == ParameterChanged("bits", 6, 4)
    assert str(bits) == "bits: 6 → 4"
    (height,) = compare(parameters={"bits": 6, "latent": {"height": 96, "width": 64}})
    assert str(height) == "latent.height: 64 → 96"
    (version,) = compare(stage_version=3)
    assert version == StageVersionChanged("quantize", 2, 3)
    (tool,) = compare(tools={"numpy": "2.2"})
    assert tool == ToolChanged("numpy", "2.1", "2.2")
    assert str(tool) == "numpy: 2.1 → 2.2"
    (package,) = compare(inputs={"package": "bb"})
    assert package == InputChanged("package", "convert:unet")


def test_fields_that_come_and_go() -> None:
    (gone,) = compare(parameters={"latent": {"height": 64, "width": 64}})
    assert str(gone) == "bits: 6 → none"
    (fresh,) = compare(parameters={**DOCUMENT["parameters"], "fresh": True})
    assert str(fresh) == "fresh: none → yes"
    (role,) = differences(DOCUMENT, {**DOCUMENT, "inputs": {}}, {}, {})
    assert role == InputsDropped(("package",))


def test_inputs_that_are_not_made_yet() -> None:
    waiting = InputWillRun("package", "convert:unet")
    new = {**DOCUMENT, "inputs": {}}
    assert differences(DOCUMENT, new, PRODUCERS, {"package": "convert:unet"}) == (waiting,)
    assert differences(None, new, PRODUCERS, {"package": "convert:unet"}) == (NeverBuilt(), waiting)


def test_another_format_says_only_that() -> None:
    assert compare(format=2, stage_version=9) == (FormatChanged(),)


def test_inputs_that_are_not_read_any_more_are_one_reason() -> None:
    old = {**DOCUMENT, "inputs": {"package": "aa", "verify-convert-unet": "bb", "verify-chunk-unet": "cc"}}
    (dropped,) = differences(old, DOCUMENT, PRODUCERS, {})
    assert dropped == InputsDropped(("verify-chunk-unet", "verify-convert-unet"))
    assert str(dropped) == "2 inputs are no longer read"
