"""Every diagnostic as its reader sees it: a bad file and the text that it must print."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdbuild.recipe.catalogue import catalogue_directories
from sdbuild.recipe.diagnostics import RecipeError, render
from sdbuild.recipe.load import load_recipe, load_target
from sdbuild.recipe.preflight import preflight

GOLDEN = Path(__file__).parent / "golden"
# A device that ends before iOS 18 is not in the catalogue.
TARGETS = [GOLDEN / "devices", *catalogue_directories("targets", GOLDEN)[-1:]]
KNOWN_TARGETS = ("iphone-15-pro", "ipad-pro-m2", "mac-studio-m2-ultra")


def compare(case: Path, text: str) -> None:
    expected = (GOLDEN / case).with_suffix(".txt")
    if os.environ.get("SDBUILD_UPDATE_GOLDEN"):
        expected.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == expected.read_text(encoding="utf-8")


def cases(kind: str) -> list[Path]:
    return [path.relative_to(GOLDEN) for path in sorted((GOLDEN / kind).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def _in_golden_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)


@pytest.mark.parametrize("case", cases("recipes"), ids=lambda path: path.stem)
def test_bad_recipe(case: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(case), [], targets=KNOWN_TARGETS)
    assert caught.value.exit_status == 2
    compare(case, str(caught.value))


@pytest.mark.parametrize("case", cases("targets"), ids=lambda path: path.stem)
def test_bad_target(case: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_target(str(case), [])
    compare(case, str(caught.value))


@pytest.mark.parametrize("case", cases("preflight"), ids=lambda path: path.stem)
def test_preflight(case: Path) -> None:
    loaded = load_recipe(str(case), [])
    found = []
    for name in loaded.recipe.targets:
        diagnostics = preflight(loaded, load_target(name, TARGETS), None)
        found.append(f"# {name}\n\n{render(diagnostics) or 'nothing'}")
    compare(case, "\n\n".join(found))


def test_there_are_enough() -> None:
    assert sum(len(cases(kind)) for kind in ("recipes", "targets")) >= 40
