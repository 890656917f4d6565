"""The checked-in recipes and targets, where they are found, and how quickly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, find_targets
from sdbuild.recipe.diagnostics import Severity, render
from sdbuild.recipe.load import load_recipe, load_target, resolve_for_target
from sdbuild.recipe.preflight import overruled, preflight

ROOT = Path(__file__).parents[2]
RECIPES = [ROOT / "recipes"]
TARGETS = [ROOT / "targets"]
TARGET_NAMES = frozenset(path.stem for path in find_targets(TARGETS))


@pytest.mark.parametrize("path", find_recipes(RECIPES), ids=lambda path: path.stem)
def test_checked_in_recipes_pass_preflight_for_all_their_targets(path: Path) -> None:
    loaded = load_recipe(path.stem, RECIPES, targets=TARGET_NAMES)
    assert loaded.recipe.description
    for name in loaded.recipe.targets:
        target = load_target(name, TARGETS)
        found = preflight(loaded, target, None)
        assert render(diagnostic for diagnostic in found if diagnostic.severity is Severity.ERROR) == ""
        assert set(overruled(found)) <= set(loaded.recipe.allow)
        assert resolve_for_target(loaded, target).attention_implementation is not None


@pytest.mark.parametrize("kind", ["recipe", "target"])
def test_the_first_line_names_the_schema(kind: str) -> None:
    for path in find_recipes([ROOT / f"{kind}s"]):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# yaml-language-server: $schema=../docs/schema/{kind}.schema.json"
        assert (path.parent / first.partition("=")[2]).is_file()


@pytest.mark.parametrize("path", find_targets(TARGETS), ids=lambda path: path.stem)
def test_targets_say_where_the_memory_figure_comes_from(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    figure = next(number for number, line in enumerate(lines) if line.startswith("app_memory_gb"))
    assert lines[figure - 1].startswith("# ")
    target = load_target(path.stem, TARGETS)
    assert target.app_memory_gb <= 0.75 * target.memory_gb


CHIPS = {
    "iOS": ["A14", "A15", "A16", "A17", "A18", "A19"],
    "iPadOS": ["A17", "M1", "M2", "M3", "M4", "M5"],
    "macOS": ["M1", "M2", "M3", "M4", "M5"],
}


@pytest.mark.parametrize(("system", "generations"), CHIPS.items())
def test_every_generation_of_chips_has_targets(system: str, generations: list[str]) -> None:
    targets = [load_target(name, TARGETS) for name in TARGET_NAMES]
    found = {t.neural_engine.generation for t in targets if t.os == system and t.neural_engine is not None}
    assert sorted(found) == generations
    assert all(t.neural_engine is not None and t.newest_os_version is not None for t in targets)


def test_published_latencies_belong_to_their_target() -> None:
    for name in TARGET_NAMES:
        target = load_target(name, TARGETS)
        for latency in target.latencies:
            assert any(latency.device.startswith(device.split(" (")[0]) for device in (target.device, *target.also))
            assert latency.compute_unit is target.compute_unit


def test_own_recipes_come_before_the_checked_in_ones(tmp_path: Path) -> None:
    assert catalogue_directories("recipes", tmp_path) == RECIPES
    (tmp_path / "recipes").mkdir()
    assert catalogue_directories("recipes", tmp_path) == [tmp_path / "recipes", *RECIPES]
    assert catalogue_directories("recipes", ROOT) == RECIPES


def test_an_installed_package_finds_the_catalogue_inside(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "sdbuild", site / "sdbuild", ignore=shutil.ignore_patterns("__pycache__", "builtin"))
    for kind in ("recipes", "targets"):
        shutil.copytree(ROOT / kind, site / "sdbuild" / "_catalogue" / kind)
    (site / "recipes").mkdir()  # some other project's
    program = (
        "from pathlib import Path; from sdbuild.recipe.catalogue import catalogue_directories;"
        "print(catalogue_directories('recipes', Path.cwd()))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([site / "sdbuild" / "_catalogue" / "recipes"])


def test_loading_everything_is_quick_and_imports_nothing_heavy() -> None:
    program = """
import sys, time
from pathlib import Path
start = time.process_time()
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes, find_targets
from sdbuild.recipe.load import load_recipe, load_target
from sdbuild.recipe.preflight import preflight
recipes, targets = (catalogue_directories(kind, Path.cwd()) for kind in ("recipes", "targets"))
known = {path.stem: load_target(path.stem, targets) for path in find_targets(targets)}
for path in find_recipes(recipes):
    loaded = load_recipe(path.stem, recipes, targets=known)
    for name in loaded.recipe.targets:
        preflight(loaded, known[name], None)
heavy = {"torch", "coremltools", "diffusers", "transformers", "numpy"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time() - start)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5  # measured 0.2 s on an idle machine; the bound is for busy ones
