"""Every checked-in recipe, with an empty cache and no network: each cheap command ends with words and a good status."""

from pathlib import Path
from typing import Any

import pytest

from sdbuild import cli
from sdbuild.plan.options import DEFAULT_RECIPE
from sdbuild.recipe.catalogue import find_recipes

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = [path.stem for path in find_recipes([CHECKOUT / "recipes"])]
COMMANDS = {
    ("plan",): 0,
    ("check",): 0,
    ("list", "--all"): 0,
    ("clean",): 0,
    ("forget", "--all"): 0,
    ("lint",): 2,  # nothing is built, which is said
}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_cheap_command(empty: Path, recipe: str, capsys: Any) -> None:
    for words, status in COMMANDS.items():
        assert cli.main([*words, f"recipe={recipe}"]) == status, (words, capsys.readouterr().err)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "not foreseen" not in said.err
    assert not (empty / "cache" / "reports").exists()


def test_the_default_recipe_without_a_word(empty: Path, capsys: Any) -> None:
    assert cli.main(["plan"]) == 0
    assert "bundle:" in capsys.readouterr().out
    assert DEFAULT_RECIPE in RECIPES
