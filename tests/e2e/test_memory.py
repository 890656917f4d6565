"""Memory on the device: what the plan says before a build, what the bundle says after it, and what is refused."""

import json
from pathlib import Path

import pytest

from sdbuild.builtin import tiny
from sdbuild.checkpoints.facts import read_checkpoint_facts
from sdbuild.estimate.bundle_memory import RESERVE, estimate
from sdbuild.recipe.load import load_recipe, load_target, resolve_for_target
from tests.e2e.program import CHECKOUT, PHONE, Workspace


def test_the_configuration_and_the_programs_agree(built: Workspace, tmp_path: Path) -> None:
    document = json.loads((built.bundle("phone") / "bundle.json").read_text())
    loaded = load_recipe(str(built.folder / "recipes/phone.yaml"), [])
    target = load_target("iphone-15-pro", [CHECKOUT / "targets"])
    tiny.generate("tiny-sd", tmp_path)
    found = estimate(resolve_for_target(loaded, target), target, read_checkpoint_facts(tmp_path))
    told = document["memory"]
    assert told["all_models"] - RESERVE == pytest.approx(found.together - RESERVE, rel=0.25)
    assert told["one_at_a_time"] - RESERVE == pytest.approx(found.one_at_a_time - RESERVE, rel=0.25)
    assert told["app_memory"] == found.budget
    assert told["fits"]
    models = {name: model["memory"] for name, model in document["models"].items()}
    assert all(memory["weights"] > memory["activations"] > 0 for memory in models.values())


def test_the_plan_tells_what_a_device_needs(built: Workspace) -> None:
    plan = built("plan", "recipe=phone", "verify=off")
    (row,) = [line for line in plan.out.splitlines() if line.startswith("iphone-15-pro")]
    assert row.endswith("yes   the programs")
    before = built("plan", "recipe=sdxl-ios", "target=iphone-15-pro")
    (row,) = [line for line in before.out.splitlines() if line.startswith("iphone-15-pro")]
    assert row.endswith("the configuration")


def test_too_much_is_refused_before_any_work(built: Workspace, tmp_path: Path) -> None:
    copy = built.clone(tmp_path)
    model = "{version: stable-diffusion-v1-5/stable-diffusion-v1-5, revision: 451f4fe16113bff5a5d2269ed5ad43b0592e9a14}"
    large = PHONE | {"name": "large", "model": model, "latent": "{height: 128, width: 128}", "targets": "[iphone-13]"}
    copy.recipe(large)
    refused = copy("recipe=large")
    assert refused.status == 2
    assert "[exceeds-app-memory]" in refused.err
    assert refused.executed == []
