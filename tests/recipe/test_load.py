"""Loading by name and path, extending, overriding, resolving."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.compression.look_up_tables import LookUpTables
from sdbuild.errors import SdbuildError
from sdbuild.recipe.catalogue import catalogue_directories, find_recipes
from sdbuild.recipe.diagnostics import RecipeError
from sdbuild.recipe.document import parse
from sdbuild.recipe.inheritance import merge
from sdbuild.recipe.load import load_recipe, load_target, resolve_for_target
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.references import ModelKind
from sdbuild.recipe.target import Target
from sdbuild.recipe.tree import Mapping, plain
from sdbuild.recipe.vocabulary import AttentionImplementation, Component

BASE = """
name: base
description: The base
model: {version: "builtin:tiny-sd"}
components: [text_encoder, unet, vae_decoder]
latent: {height: 64, width: 64}
quantization: {unet: 6, text_encoder: 8}
targets: [iphone-15-pro, mac-studio-m2-ultra]
"""
TARGETS = catalogue_directories("targets", Path(__file__).parent)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def target(name: str) -> Target:
    return load_target(name, TARGETS)


def test_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(str(write(tmp_path, "base", BASE)), []).recipe
    assert recipe.text_sequence_length == 77
    assert (recipe.unet.batch, recipe.unet.chunks) == (2, 1)
    assert recipe.deployment_target == "iOS16"
    assert recipe.attention_implementation is None
    assert recipe.controlnets == ()
    assert recipe.compression("unet") == LookUpTables(6)
    assert recipe.compression("vae_decoder") is None
    assert recipe.components == (Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER)


def test_settings_by_part_read_like_mappings(tmp_path: Path) -> None:
    recipe = load_recipe(str(write(tmp_path, "base", BASE)), []).recipe
    assert recipe.quantization.get(Component.UNET) == 6
    assert recipe.quantization.get("controlnet", "none") == "none"
    assert "unet" in recipe.quantization
    assert "vae_decoder" not in recipe.quantization
    assert recipe.quantization.named() == {"text_encoder": 8, "unet": 6}


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load_recipe(str(write(tmp_path, "base", BASE)), []).recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"


def test_sdxl_vae_is_float32_unless_stated(tmp_path: Path) -> None:
    recipe = load_recipe(str(write(tmp_path, "base", BASE)), []).recipe
    stated = recipe.model_copy(update={"precision": recipe.precision.model_copy(update={"vae_decoder": "float16"})})
    assert recipe.precision_of("vae_decoder", "sd1") == "float16"
    assert recipe.precision_of("vae_decoder", "sdxl") == "float32"
    assert recipe.precision_of("unet", "sdxl") == "float16"
    assert stated.precision_of("vae_decoder", "sdxl") == "float16"
    assert stated.precision_of("vae_encoder", "sdxl") == "float32"


def test_the_first_folder_wins(tmp_path: Path) -> None:
    write(tmp_path / "mine", "base", BASE.replace("The base", "Mine"))
    write(tmp_path / "theirs", "base", BASE)
    write(tmp_path / "theirs", "other", BASE.replace("name: base", "name: other"))
    folders = [tmp_path / "mine", tmp_path / "theirs"]
    assert load_recipe("base", folders).recipe.description == "Mine"
    assert [path.parent.name for path in find_recipes(folders)] == ["mine", "theirs"]


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    with pytest.raises(RecipeError, match=r"no recipe `bsae`(.|\n)*did you mean `base`") as caught:
        load_recipe("bsae", [tmp_path])
    assert isinstance(caught.value, SdbuildError)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", ["..", "../base", "a b", "/etc/passwd", "Base", ""])
def test_only_names_are_looked_up(tmp_path: Path, name: str) -> None:
    write(tmp_path.parent, "base", BASE)
    with pytest.raises(RecipeError):
        load_recipe(name, [tmp_path])


def test_extending_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    text = """
name: child
extends: base
latent: {height: 96}
quantization: {unet: 4, text_encoder: null}
targets: [iphone-15-pro]
"""
    loaded = load_recipe(str(write(tmp_path / "deeper", "child", text)), [tmp_path])
    assert loaded.recipe.latent.model_dump() == {"height": 96, "width": 64}
    assert loaded.recipe.quantization.named() == {"unet": 4}
    assert loaded.recipe.targets == ("iphone-15-pro",)
    assert loaded.recipe.description == ""
    assert loaded.recipe.components == (Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER)


def test_extending_by_path_and_in_a_row(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    write(tmp_path / "a", "middle", "name: middle\nextends: ../base.yaml\nunet: {chunks: 2}\n")
    last = write(tmp_path / "b", "last", "name: last\nextends: ../a/middle.yaml\nunet: {batch: 1}\n")
    recipe = load_recipe(str(last), []).recipe
    assert (recipe.unet.batch, recipe.unet.chunks) == (1, 2)


def test_a_checkpoint_is_found_from_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "a", "base", BASE.replace('"builtin:tiny-sd"', "./checkpoint"))
    child = write(tmp_path / "b", "child", "name: child\nextends: ../a/base.yaml\n")
    loaded = load_recipe(str(child), [])
    assert loaded.recipe.model.kind is ModelKind.DIRECTORY
    assert loaded.directory_of(loaded.recipe.model) == tmp_path / "a" / "checkpoint"


def test_one_relative_path_cannot_mean_two_places(tmp_path: Path) -> None:
    write(tmp_path / "a", "base", BASE.replace('"builtin:tiny-sd"', "./checkpoint"))
    text = "name: child\nextends: ../a/base.yaml\ncontrolnets: [{version: ./checkpoint}]\n"
    with pytest.raises(RecipeError, match="two places"):
        load_recipe(str(write(tmp_path / "b", "child", text)), [])


def test_resolving_for_a_target(tmp_path: Path) -> None:
    text = BASE + "overrides:\n  mac-studio-m2-ultra: {latent: {height: 128}, quantization: {unet: none}}\n"
    loaded = load_recipe(str(write(tmp_path, "base", text)), [])
    phone = resolve_for_target(loaded, target("iphone-15-pro"))
    mac = resolve_for_target(loaded, target("mac-studio-m2-ultra"))
    assert (phone.latent.height, mac.latent.height) == (64, 128)
    assert (phone.compression("unet"), mac.compression("unet")) == (LookUpTables(6), None)
    assert (mac.compression("text_encoder"), mac.latent.width) == (LookUpTables(8), 64)
    assert phone.attention_implementation is AttentionImplementation.SPLIT_EINSUM_V2
    assert mac.attention_implementation is AttentionImplementation.ORIGINAL
    assert mac.targets == ("mac-studio-m2-ultra",)
    assert mac.overrides == {}


def test_a_target_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    loaded = load_recipe(str(write(tmp_path, "base", BASE)), [])
    with pytest.raises(RecipeError, match="its targets are: iphone-15-pro, mac-studio-m2-ultra"):
        resolve_for_target(loaded, target("ipad-pro-m1"))


def test_a_mistake_in_the_base_is_told_once_and_at_its_place(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE.replace("unet: 6", "unet: 5"))
    child = write(tmp_path, "child", "name: child\nextends: base\noverrides:\n  iphone-15-pro: {unet: {chunks: 2}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(child), [])
    spans = [diagnostic.span for diagnostic in caught.value.diagnostics]
    assert [(span.path.name, span.line, span.column) for span in spans if span] == [("base.yaml", 7, 22)]


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "recipe.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    recipe = load_recipe(str(write(tmp_path, "sdxl-ios", example)), []).recipe
    assert isinstance(recipe, Recipe)
    assert recipe.model.is_pinned


PINNED = BASE.replace('{version: "builtin:tiny-sd"}', "{version: organisation/one, revision: " + "a" * 40 + "}")


def test_another_version_takes_nothing_over_from_the_one_it_replaces(tmp_path: Path) -> None:
    write(tmp_path, "base", PINNED)
    (tmp_path / "mine").mkdir()
    local = load_recipe(str(write(tmp_path, "local", "name: local\nextends: base\nmodel: {version: ./mine}\n")), [])
    assert local.recipe.model.kind is ModelKind.DIRECTORY
    assert local.recipe.model.revision is None
    other = load_recipe(
        str(write(tmp_path, "other", "name: other\nextends: base\nmodel: {version: organisation/two}\n")), []
    )
    assert (other.recipe.model.version, other.recipe.model.revision) == ("organisation/two", None)


def test_the_same_version_keeps_what_is_not_said_again(tmp_path: Path) -> None:
    write(tmp_path, "base", PINNED)
    text = "name: same\nextends: base\nmodel: {version: organisation/one, file: one.safetensors}\n"
    model = load_recipe(str(write(tmp_path, "same", text)), []).recipe.model
    assert (model.revision, model.file) == ("a" * 40, "one.safetensors")


def test_overrides_of_targets_that_are_no_longer_listed_fall_away(tmp_path: Path) -> None:
    overrides = "overrides:\n  mac-studio-m2-ultra: {unet: {chunks: 2}}\n  iphone-15-pro: {unet: {batch: 1}}\n"
    write(tmp_path, "base", BASE + overrides)
    child = write(tmp_path, "child", "name: child\nextends: base\ntargets: [iphone-15-pro]\n")
    recipe = load_recipe(str(child), [], targets=["iphone-15-pro", "mac-studio-m2-ultra"]).recipe
    assert list(recipe.overrides) == ["iphone-15-pro"]
    grandchild = write(tmp_path, "grandchild", "name: grandchild\nextends: child\ntargets: [mac-studio-m2-ultra]\n")
    assert load_recipe(str(grandchild), []).recipe.overrides == {}


def test_overrides_of_its_own_must_be_for_listed_targets(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    text = "name: child\nextends: base\ntargets: [iphone-15-pro]\n"
    text += "overrides: {mac-studio-m2-ultra: {unet: {chunks: 2}}}\n"
    with pytest.raises(RecipeError, match="not among the recipe's targets"):
        load_recipe(str(write(tmp_path, "child", text)), [])


keys = st.sampled_from("abc")
leaves = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
trees = st.recursive(
    st.dictionaries(keys, leaves, max_size=3), lambda inner: st.dictionaries(keys, inner | leaves, max_size=3)
)


def tree(data: object) -> Mapping:
    root, mistakes = parse(f"root: {data}".replace("'", ""), Path("x.yaml"))
    assert root is not None
    assert not mistakes
    inner = root.entries["root"].value
    assert isinstance(inner, Mapping)
    return inner


@given(trees, trees, trees)
def test_merging_is_associative_and_keeps_the_upper_tree(
    low: dict[str, object], middle: dict[str, object], high: dict[str, object]
) -> None:
    one = merge(merge(tree(low), tree(middle)), tree(high))
    assert plain(merge(tree(low), tree(low))) == low
    assert plain(merge(tree({}), tree(high))) == high
    for key, value in high.items():
        if not isinstance(value, dict):
            assert plain(one)[key] == value
    assert set(plain(one)) == {*low, *middle, *high}
