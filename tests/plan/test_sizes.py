"""Several sizes from one recipe: a bundle for each, and everything that a size does not change once."""

from typing import Any

import pytest

from sdbuild.plan.action import Action, Graph
from sdbuild.plan.errors import PlanError
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from sdbuild.recipe.diagnostics import RecipeError

SIZES = "[{height: 96, width: 64}, {height: 64, width: 96}]"
NAMES = ["iphone-15-pro", "iphone-15-pro-768x512", "iphone-15-pro-512x768"]


def bundles(graph: Graph) -> list[Action]:
    return [action for action in graph if action.stage.name == "bundle"]


def test_each_size_has_a_bundle_and_shares_the_rest(workspace: Any) -> None:
    workspace.recipe(sizes=SIZES)
    plan = make_plan(parse_options({"recipe": "phone"}))
    assert [bundle.component for bundle in bundles(plan.graph)] == NAMES
    assert [path.name for path in plan.outputs.values()] == NAMES
    names = [action.name for action in plan.graph]
    assert [name for name in names if name.startswith("convert:")] == [
        "convert:text_encoder",
        *(f"convert:{part}@{name}" for name in NAMES for part in ("unet", "vae_decoder")),
    ]
    assert sum(name.startswith("source:") for name in names) == sum(
        action.stage.name == "source" for action in make_plan(parse_options({"recipe": "phone"})).graph
    )
    latents = [bundle.parameters["latent"] for bundle in bundles(plan.graph)]
    assert latents == [{"height": 64, "width": 64}, {"height": 96, "width": 64}, {"height": 64, "width": 96}]
    assert {bundle.parameters["target"]["name"] for bundle in bundles(plan.graph)} == {"iphone-15-pro"}


def test_the_first_size_is_built_as_if_it_were_alone(workspace: Any) -> None:
    alone = {action.identity for action in make_plan(parse_options({"recipe": "phone"})).graph}
    workspace.recipe(sizes=SIZES)
    first = make_plan(parse_options({"recipe": "phone", "target": "iphone-15-pro"})).graph
    assert {action.identity for action in first} == alone
    other = make_plan(parse_options({"recipe": "phone", "target": "iphone-15-pro-768x512"}))
    assert [bundle.component for bundle in bundles(other.graph)] == ["iphone-15-pro-768x512"]
    with pytest.raises(PlanError, match="iphone-15-pro-512x768"):
        make_plan(parse_options({"recipe": "phone", "target": "iphone-15-pro-768x768"}))


def test_a_size_may_differ_for_one_target_and_is_not_built_twice(workspace: Any) -> None:
    workspace.recipe(
        sizes="[{height: 64, width: 64}]",
        targets="[iphone-15-pro, ipad-pro-m2]",
        overrides=f"{{ipad-pro-m2: {{sizes: {SIZES}}}}}",
    )
    plan = make_plan(parse_options({"recipe": "phone"}))
    assert [bundle.component for bundle in bundles(plan.graph)] == [
        *("iphone-15-pro", "ipad-pro-m2", "ipad-pro-m2-768x512", "ipad-pro-m2-512x768")
    ]


def test_rules_look_at_every_size(workspace: Any) -> None:
    workspace.recipe(sizes="[{height: 96, width: 64}, {height: 64, width: 90}]")
    ran = workspace("check", "recipe=phone")
    assert ran.status == 2
    assert "latent width 90 is not a multiple of 8" in ran.err + ran.out
    assert "latent-not-divisible" in ran.err + ran.out
    workspace.recipe(sizes="[{height: 96, width: 64}, {height: 96, width: 64}]")
    with pytest.raises(RecipeError, match="again"):
        make_plan(parse_options({"recipe": "phone"}))


def test_every_bundle_is_put_in_its_place(workspace: Any) -> None:
    workspace.recipe(sizes="[{height: 96, width: 64}]")
    ran = workspace("recipe=phone")
    assert ran.status == 0, ran.err
    folder = workspace.root / "build/phone"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == NAMES[:2]
    assert workspace("recipe=phone").actions == []
