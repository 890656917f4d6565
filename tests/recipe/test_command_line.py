"""Settings on the command line: they mean what they mean in a file, win over it, and are pointed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdbuild.compression.look_up_tables import LookUpTables
from sdbuild.recipe.catalogue import catalogue_directories
from sdbuild.recipe.command_line import FIELDS, is_setting
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.load import load_recipe, load_target, resolve_for_target
from sdbuild.recipe.recipe import Recipe

RECIPE = """name: mine
model: {version: organisation/one, revision: 451f4fe16113bff5a5d2269ed5ad43b0592e9a14}
components: [text_encoder, unet, vae_decoder]
latent: {height: 64, width: 64}
quantization: {unet: 6, text_encoder: 8}
targets: [iphone-15-pro, mac-studio-m2-ultra]
overrides:
  mac-studio-m2-ultra: {quantization: {unet: 8}, unet: {chunks: 1}}
"""
TARGETS = catalogue_directories("targets", Path(__file__).parent)


def load(tmp_path: Path, *settings: tuple[str, str]) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return load_recipe(str(path), [], settings=settings).recipe


def test_a_setting_wins_and_leaves_the_rest(tmp_path: Path) -> None:
    recipe = load(tmp_path, ("quantization.unet", "4"), ("unet.chunks", "2"), ("latent", "{height: 96, width: 64}"))
    assert recipe.compression("unet") == LookUpTables(4)
    assert recipe.compression("text_encoder") == LookUpTables(8)
    assert recipe.unet.chunks == 2
    assert (recipe.latent.height, recipe.latent.width) == (96, 64)


def test_a_setting_wins_over_what_is_said_for_a_target(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    loaded = load_recipe(str(path), [], settings=[("quantization.unet", "4")])
    mac = resolve_for_target(loaded, load_target("mac-studio-m2-ultra", TARGETS))
    assert mac.compression("unet") == LookUpTables(4)
    assert mac.unet.chunks == 1, "what is not set stays as the override says"


def test_another_version_drops_the_revision(tmp_path: Path) -> None:
    assert load(tmp_path, ("model.version", "organisation/two")).model.revision is None


def test_a_path_is_read_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipes/mine.yaml"
    path.write_text(RECIPE)
    loaded = load_recipe(str(path), [], settings=[("model.version", "./checkpoint")])
    assert loaded.directory_of(loaded.recipe.model) == tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("quantization.unet", "5", "command line:1:22: `quantization.unet`"),
        ("quantization.unett", "4", "did you mean `unet`?"),
        ("latent", "{height: 96", "command line:1:"),
        ("unet.chunks", "two", "command line:1:16"),
        ("text_sequence_length", "-1", "`text_sequence_length`"),
        ("attention_implementation", "SPLIT", "`attention_implementation`"),
    ],
)
def test_a_mistake_is_pointed_at(tmp_path: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, (name, value))
    assert message in str(caught.value)


def test_what_says_which_recipe_it_is_cannot_be_set() -> None:
    assert not any(is_setting(name) for name in ("name", "targets", "extends", "overrides", "recipe", "out", "seed"))
    assert {"quantization", "latent", "model", "unet"} <= {*FIELDS}
