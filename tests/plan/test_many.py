"""Several recipes, and settings, on one command line."""

from typing import Any

import pytest


@pytest.fixture
def two(workspace: Any) -> Any:
    workspace.recipe(name="tablet", targets="[ipad-pro-m2]")
    return workspace


@pytest.mark.parametrize("words", ["recipe=phone,tablet", "recipe=./recipes", "recipe=p*e,tabl?t"])
def test_several_recipes_are_built_one_after_the_other(two: Any, words: str) -> None:
    ran = two(words)
    assert ran.status == 0, ran.err
    assert (two.root / "build/phone/iphone-15-pro").is_dir()
    assert (two.root / "build/tablet/ipad-pro-m2").is_dir()
    assert "recipe 2 of 2: " in ran.err
    assert "2 recipes: 2 without a failure" in ran.err
    assert ran.actions.count("convert:text_encoder") == 1, "they share what they have in common"


def test_a_failure_does_not_stop_the_others_and_is_told_at_the_end(two: Any) -> None:
    two.recipe(name="broken", model="{version: ./nowhere}")
    ran = two("recipe=broken,tablet")
    assert ran.status == 2
    assert (two.root / "build/tablet/ipad-pro-m2").is_dir()
    assert ran.err.rstrip().endswith("2 recipes: 1 without a failure; failed: broken")


def test_commands_take_several_recipes_too(two: Any) -> None:
    out = two("plan", "recipe=phone,tablet").out
    assert "bundle:iphone-15-pro" in out
    assert "bundle:ipad-pro-m2" in out


def test_a_folder_that_is_called_like_a_recipe_is_not_meant(two: Any) -> None:
    (two.root / "phone").mkdir()
    assert two("recipe=phone").status == 0


@pytest.mark.parametrize("words", ["recipe=x*", "recipe=./empty/"])
def test_what_matches_nothing_is_refused(two: Any, words: str) -> None:
    (two.root / "empty").mkdir()
    ran = two(words)
    assert ran.status == 2
    assert words in ran.err


def test_a_setting_is_for_one_run(workspace: Any) -> None:
    assert workspace("recipe=phone").status == 0
    plan = workspace("plan", "recipe=phone", "quantization.unet=4")
    assert "bits: 6 → 4" in plan.out
    ran = workspace("recipe=phone", "quantization.unet=4", "text_sequence_length=64")
    assert ran.status == 0, ran.err
    assert "quantize:unet" in ran.actions
    assert workspace("recipe=phone").actions == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("quantization.unet=5", "command line:1:22"),
        ("quantisation.unet=4", "did you mean 'quantization.unet'?"),
        ("targets=[mac-m1]", "unknown variable 'targets='"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(workspace: Any, word: str, message: str) -> None:
    for command in ((), ("plan",), ("check",)):
        ran = workspace(*command, "recipe=phone", word)
        assert ran.status == 2
        assert message in ran.err
