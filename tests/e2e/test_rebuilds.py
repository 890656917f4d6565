"""What a change builds with real stages, what it shares, and that the plan says so before."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.program import DESK, PHONE, Workspace, content, overwrite

HEAVY = {"torch", "coremltools", "diffusers", "transformers", "numpy", "huggingface_hub"}
BUNDLE = "bundle:iphone-15-pro"
BUILD = ("recipe=phone", "verify=off")
PLAN = ("plan", *BUILD)


def imported(err: str) -> set[str]:
    """The top-level packages in a profile of imports."""
    lines = [line for line in err.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_first_build_ends_with_a_bundle_that_passes_lint(built: Workspace) -> None:
    actions = set(built.logs().values())
    assert {"convert:text_encoder", "convert:unet", "quantize:unet", "chunk:unet", "convert:vae_decoder"} < actions
    document = json.loads((built.bundle() / "bundle.json").read_text())
    assert document["compiled"] is False
    assert {"vocab.json", "merges.txt"} < {path.name for path in (built.bundle() / "Resources").iterdir()}
    lint = built("lint", "recipe=phone")
    assert lint.status == 0, lint.err


@pytest.mark.parametrize("program", ["sdbuild", "doit"])
def test_the_second_build_runs_nothing_and_imports_nothing_heavy(phone: Workspace, program: str) -> None:
    words = (f"recipe={phone.folder / 'recipes/phone.yaml'}", "verify=off", f"out={phone.folder / 'build'}")
    assert phone(*words, program=program).executed == []
    again = phone(*words, program=program, PYTHONPROFILEIMPORTTIME="1")
    assert again.status == 0
    assert again.executed == []
    assert "nothing to do" in again.err
    assert "sdbuild" in imported(again.err)
    assert not HEAVY & imported(again.err)
    assert again.cpu_seconds < 1.5


def test_editing_the_description_builds_nothing(phone: Workspace) -> None:
    phone.recipe(PHONE, description="Something else to say")
    assert phone(*PLAN).to_run() == []
    ran = phone(*BUILD)
    assert (ran.status, ran.executed) == (0, [])


def test_fewer_bits_run_quantize_and_what_follows(phone: Workspace) -> None:
    before = content(phone.bundle())
    phone.recipe(PHONE, quantization="{unet: 4}")
    plan = phone(*PLAN)
    assert plan.executed == []
    assert plan.to_run() == [BUNDLE, "chunk:unet", "quantize:unet"]
    assert "bits: 6 → 4" in plan.rows()["quantize:unet"]
    assert "after quantize:unet" in plan.rows()["chunk:unet"]
    ran = phone(*BUILD)
    assert ran.status == 0, ran.err
    assert ran.executed == plan.to_run()
    changed = {name for name, digest in content(phone.bundle()).items() if before[name] != digest}
    assert {name.split("/")[1] for name in changed if "/" in name} == {"UnetChunk1.mlpackage", "UnetChunk2.mlpackage"}
    phone.recipe(PHONE)
    assert phone(*BUILD).executed == []
    assert content(phone.bundle()) == before, "going back finds the older artifacts"


def test_a_second_recipe_shares_the_checkpoint_s_models(phone: Workspace) -> None:
    plan = phone("plan", "recipe=desk", "verify=off")
    own = ["bundle:mac-studio-m2-ultra", "bundle:macbook-pro-m1-max", "quantize:unet"]
    assert plan.to_run() == own
    for shared in ("convert:text_encoder", "convert:vae_decoder", "convert:unet"):
        assert plan.rows()[shared].startswith("cached")
        assert "recipe phone" in plan.rows()[shared]
    ran = phone("recipe=desk", "verify=off")
    assert ran.status == 0, ran.err
    assert ran.executed == own
    sizes = [
        (phone.bundle("desk", target) / "Resources/Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat()
        for target in ("mac-studio-m2-ultra", "macbook-pro-m1-max")
    ]
    assert sizes[0].st_size < 0.6 * sizes[1].st_size, "one target's override leaves its UNet as it is"

    phone.recipe(DESK, attention_implementation="ORIGINAL")
    plan = phone("plan", "recipe=desk", "verify=off")
    assert plan.to_run() == ["bundle:mac-studio-m2-ultra", "bundle:macbook-pro-m1-max", "convert:unet", "quantize:unet"]
    assert "attention_implementation: SPLIT_EINSUM → ORIGINAL" in plan.rows()["convert:unet"]
    ran = phone("recipe=desk", "verify=off")
    assert ran.status == 0, ran.err
    assert ran.executed == plan.to_run()


Damage = Callable[[Path], None]


def _delete(path: Path) -> None:
    path.unlink()


def _edit(path: Path) -> None:
    overwrite(path, b"tampered")


def _replace(path: Path) -> None:
    path.unlink()
    path.write_text("another file")


@pytest.mark.parametrize("damage", [_delete, _edit, _replace])
def test_a_damaged_output_is_noticed_and_put_back(phone: Workspace, damage: Damage) -> None:
    before = content(phone.bundle())
    phone("clean", *BUILD)
    assert not phone.bundle().exists()
    assert phone(*BUILD).executed == [], "the cache has it; now the bundle's files may be the cache's own, linked"
    damage(phone.bundle() / "Resources/vocab.json")
    assert BUNDLE in phone(*PLAN).to_run()
    ran = phone(*BUILD)
    assert ran.status == 0, ran.err
    assert content(phone.bundle()) == before
    assert phone(*PLAN).to_run() == []


@pytest.mark.parametrize("damage", [_delete, _edit])
def test_a_damaged_blob_is_noticed_and_made_again(phone: Workspace, damage: Damage) -> None:
    before = content(phone.bundle())
    damage(phone.blob("phone/convert:text_encoder", "TextEncoder.mlpackage/Data/com.apple.CoreML/model.mlmodel"))
    plan = phone(*PLAN)
    assert "convert:text_encoder" in plan.to_run()
    assert "its result in the cache is damaged" in plan.rows()["convert:text_encoder"]
    ran = phone(*BUILD)
    assert ran.status == 0, ran.err
    assert ran.executed == ["convert:text_encoder"], "the same bytes come out, so nothing else has to run"
    assert content(phone.bundle()) == before
    assert phone(*PLAN).to_run() == []
