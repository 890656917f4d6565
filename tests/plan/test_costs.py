"""What a plan expects of each action: as measured where the same has run, else by size and speed, and never made up."""

from typing import Any

import pytest

from sdbuild.checkpoints.facts import known_facts
from sdbuild.estimate.build_cost import Work, memory, seconds
from sdbuild.plan.costs import Cost, Costs
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import Plan, make_plan
from sdbuild.plan.status import Statuses
from sdbuild.store import ActionResult, Store, key_of

SDXL = {"recipe": "sdxl-ios", "target": "iphone-15-pro"}


def costs_of(store: Store, variables: dict[str, str]) -> tuple[Plan, Costs]:
    plan = make_plan(parse_options(variables))
    statuses = Statuses(plan.graph, store, plan.outputs)
    facts = plan.model.facts or known_facts(plan.loaded.recipe.model)
    return plan, Costs(store, statuses, plan.loaded.recipe, facts)


def record(store: Store, name: str, document: dict[str, Any], spent: float, needed: int) -> None:
    directory = store.scratch()
    (directory / "made").write_text(name)
    tree = store.put_tree(directory).digest
    result = ActionResult(tree, spent, needed, needed, "logs/none", "2026-01-01T00:00:00+00:00")
    store.record(key_of(document), document, result, name=name)


@pytest.mark.parametrize(
    ("stage", "work", "measured_seconds", "measured_bytes"),
    [
        # docs/explanation/measurements.md, two cores.
        ("convert", Work(859.52e6), 11.9, 0.42e9),
        ("convert", Work(2567.46e6), 30.8, 0.64e9),
        ("quantize", Work(859.52e6, bits=6), 14.5, 0.31e9),
        ("chunk", Work(859.52e6), 3.0, 0.04e9),
        ("reference", Work(859.52e6, 64 * 64, 2, 6), 120.0, 4.3e9),
    ],
)
def test_estimates_are_right_within_a_factor_of_two(
    stage: str, work: Work, measured_seconds: float, measured_bytes: float
) -> None:
    expected, needed = seconds(stage, work), memory(stage, work)
    assert expected is not None
    assert needed is not None
    assert 0.5 < expected / measured_seconds < 2
    assert needed > 0.9 * measured_bytes
    assert needed < 2 * measured_bytes or needed < 150e6


def test_a_small_model_that_ran_says_nothing_of_a_large_one(workspace: Any) -> None:
    store = workspace.store()
    small, small_costs = costs_of(store, {"recipe": "phone"})
    for action in small.graph:
        if action.stage.name in ("convert", "reference"):
            inputs = dict.fromkeys(action.inputs, "0" * 64)
            document = {"parameters": dict(action.parameters), "inputs": inputs, "stage": action.stage.name}
            record(store, action.name, document, 22.0, 500_000_000)
    large, costs = costs_of(store, SDXL)
    reference = costs[large.graph["reference:unet"]]
    assert not reference.measured
    assert reference.seconds is not None
    assert reference.memory is not None
    assert reference.seconds > 100
    assert 10e9 < reference.memory < 16e9
    assert small_costs[small.graph["reference:unet"]].memory is not None


def test_what_ran_here_with_as_much_is_what_is_expected(workspace: Any) -> None:
    assert workspace("recipe=phone").status == 0
    workspace.recipe(description="Another")
    store = workspace.store()
    plan, costs = costs_of(store, {"recipe": "phone"})
    assert costs[plan.graph["convert:unet"]] == Cost(
        12.5, 1_000_000, costs.size(plan.graph["convert:unet"]), 0, measured=True
    )
    workspace.recipe(latent="{height: 96, width: 96}")
    plan, costs = costs_of(store, {"recipe": "phone"})
    assert not costs[plan.graph["convert:unet"]].measured
    assert costs[plan.graph["convert:text_encoder"]].measured


def test_sizes_of_downloads_and_bundles_are_told_before_anything_is_there(workspace: Any) -> None:
    plan, costs = costs_of(workspace.store(), SDXL)
    download = sum(costs[action].download or 0 for action in plan.graph)
    # 2567 + 123 + 695 million weights in half precision, and an autoencoder's 84 million in float32.
    assert download == pytest.approx(2 * 3.385e9 + 4 * 84e6, rel=0.01)
    bundle = costs.size(plan.graph["bundle:iphone-15-pro"])
    assert bundle == pytest.approx(0.75 * (2567 + 123 + 695) * 1e6 + 4 * 49.5e6, rel=0.03)


def test_what_is_not_known_says_so(workspace: Any) -> None:
    workspace.recipe(model="{version: somebody/something, revision: %s}" % ("a" * 40))
    plan, costs = costs_of(workspace.store(), {"recipe": "phone"})
    assert costs[plan.graph["source:unet"]] == Cost(None, None, None, None)
    assert costs[plan.graph["convert:unet"]].seconds is None
    out = workspace("plan", "recipe=phone").out
    assert "unknown" in out
    assert "of unknown cost" in out
    assert "bundle: build/phone/iphone-15-pro (size: unknown)" in out


def test_a_plan_of_a_contact_sheet_is_no_riddle(workspace: Any) -> None:
    ran = workspace("plan", "recipe=shapes")
    assert ran.status == 0
    assert "variant:float16" in ran.out
