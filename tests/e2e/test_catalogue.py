"""The installed program in any folder: its own recipes and targets first, then those that come with it."""

from pathlib import Path

import pytest

from tests.e2e.program import CHECKOUT, PHONE, Workspace


@pytest.fixture
def elsewhere(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "elsewhere", tmp_path / "cache")


def test_a_folder_s_own_recipes_come_first(elsewhere: Workspace) -> None:
    elsewhere.recipe(PHONE | {"name": "tiny-sd"}, description="Mine, and not the one that comes along")
    elsewhere.recipe(PHONE)
    (elsewhere.folder / "targets").mkdir()
    target = (CHECKOUT / "targets/iphone-15-pro.yaml").read_text().replace("iPhone 15 Pro", "My own phone")
    (elsewhere.folder / "targets/iphone-15-pro.yaml").write_text(target)
    recipes = elsewhere("recipes")
    assert recipes.status == 0
    (line,) = [line for line in recipes.out.splitlines() if line.startswith("tiny-sd ")]
    assert "Mine, and not" in line
    for name in ("phone", "sd15-ios", "tiny-sdxl"):
        assert any(line.startswith(f"{name} ") for line in recipes.out.splitlines())
    assert "My own phone" in elsewhere("targets").out
    plan = elsewhere("plan", "recipe=tiny-sd", "verify=off")
    assert plan.status == 0
    assert "convert:vae_encoder" not in plan.rows()
    assert not elsewhere.cache.exists()


def test_a_folder_without_recipes_has_those_that_come_along(elsewhere: Workspace) -> None:
    elsewhere.folder.mkdir()
    plan = elsewhere("plan", "recipe=tiny-sdxl")
    assert plan.status == 0
    assert "convert:text_encoder_2" in plan.to_run()
    unknown = elsewhere("plan", "recipe=tiny-sdx")
    assert unknown.status == 2
    assert "tiny-sdxl" in unknown.err
    assert list(elsewhere.folder.iterdir()) == []
    assert not elsewhere.cache.exists()
