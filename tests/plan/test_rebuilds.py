"""What a change rebuilds, and that the plan says so before."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdbuild import stages
from sdbuild.plan import action
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from tests.plan.fakes import CONFIGS


def rows(out: str) -> dict[str, str]:
    """A plan's rows: action → the rest of its line."""
    table = out.split("\n\n")[0].splitlines()[1:-1]  # the second table is on memory
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in table}


def to_run(out: str) -> list[str]:
    return [name for name, rest in rows(out).items() if rest.startswith("run")]


def test_the_first_build_runs_everything_and_the_second_nothing(workspace: Any) -> None:
    first = workspace("recipe=phone")
    assert first.status == 0, first.err
    assert first.actions[-1] == "bundle:iphone-15-pro"
    assert "chunk:unet" in first.actions
    assert (workspace.root / "build/phone/iphone-15-pro/bundle.json").is_file()
    second = workspace("recipe=phone")
    assert second.status == 0
    assert second.actions == []
    assert "nothing to do" in second.err
    assert "-- convert:unet" in second.out.splitlines()
    assert "build/phone/iphone-15-pro" in second.err


def test_what_concerns_the_host_stands_beside_the_bundle(workspace: Any) -> None:
    workspace("recipe=phone")
    told = json.loads((workspace.root / "build/phone/iphone-15-pro.build-host.json").read_text())
    assert told["actions"]["convert:unet"]["seconds"] == 12.5
    assert "bundle:iphone-15-pro" in told["actions"]


def test_no_file_of_a_local_checkpoint_is_copied(workspace: Any) -> None:
    workspace("recipe=phone")
    weights = (workspace.root / "checkpoint/unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert all(path.read_bytes() != weights for path in (workspace.cache / "blobs").rglob("*") if path.is_file())


def test_editing_the_description_builds_nothing(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(description="Another one")
    assert to_run(workspace("plan", "recipe=phone").out) == []
    assert workspace("recipe=phone").actions == []


def test_fewer_bits_run_quantize_and_what_follows(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(quantization="{unet: 4}")
    plan = workspace("plan", "recipe=phone")
    expected = [
        "quantize:unet",
        "verify:quantize-unet",
        "chunk:unet",
        "verify:chunk-unet",
        "bundle:iphone-15-pro",
    ]
    assert to_run(plan.out) == expected
    assert "bits: 6 → 4" in rows(plan.out)["quantize:unet"]
    assert "12 s, 1.0 MB" in rows(plan.out)["quantize:unet"]
    assert "quantization.unet: 6 → 4" in rows(plan.out)["bundle:iphone-15-pro"]
    assert "after quantize:unet" in rows(plan.out)["chunk:unet"]
    built = workspace("recipe=phone")
    assert sorted(built.actions) == sorted(expected)
    assert "bits: 6 → 4" in built.err
    workspace.recipe()
    assert workspace("recipe=phone").actions == [], "going back finds the older results"


def test_another_attention_implementation_converts_the_unet_alone(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(attention_implementation="SPLIT_EINSUM_V2")
    plan = workspace("plan", "recipe=phone")
    assert "attention_implementation: SPLIT_EINSUM → SPLIT_EINSUM_V2" in rows(plan.out)["convert:unet"]
    built = workspace("recipe=phone")
    assert to_run(plan.out) == [name for name in rows(plan.out) if name in built.actions]
    assert "convert:unet" in built.actions
    assert not {"convert:text_encoder", "convert:vae_decoder", "reference:unet"} & {*built.actions}


def test_another_latent_size_leaves_the_text_encoder_alone(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(latent="{height: 96, width: 64}")
    built = workspace("recipe=phone")
    assert {"convert:unet", "convert:vae_decoder"} <= {*built.actions}
    assert not {"convert:text_encoder", "verify:convert-text_encoder"} & {*built.actions}


def test_a_changed_tokenizer_never_converts_the_unet(workspace: Any) -> None:
    workspace("recipe=phone")
    (workspace.root / "checkpoint/tokenizer/vocab.json").write_text('{"b": 0}')
    plan = workspace("plan", "recipe=phone")
    assert "new or changed, to be read" in rows(plan.out)["source:tokenizer"]
    built = workspace("recipe=phone")
    assert built.status == 0
    assert not any(name.startswith(("convert:", "quantize:", "chunk:")) for name in built.actions)
    assert "bundle:iphone-15-pro" in built.actions


def test_a_touched_file_with_the_same_content_changes_nothing(workspace: Any) -> None:
    workspace("recipe=phone")
    weights = workspace.root / "checkpoint/unet/diffusion_pytorch_model.safetensors"
    os.utime(weights, (time.time() + 60, time.time() + 60))
    assert workspace("recipe=phone").actions == []


def test_an_output_that_is_deleted_or_changed_is_put_back(workspace: Any) -> None:
    workspace("recipe=phone")
    bundle = workspace.root / "build/phone/iphone-15-pro"
    shutil.rmtree(bundle)
    plan = workspace("plan", "recipe=phone")
    assert "build/phone/iphone-15-pro does not exist" in rows(plan.out)["bundle:iphone-15-pro"]
    assert workspace("recipe=phone").actions == [], "the cache has it; it is only put at its place"
    document = bundle / "bundle.json"
    before = document.read_text()
    document.unlink()
    document.write_text("replaced")
    plan = workspace("plan", "recipe=phone")
    assert "build/phone/iphone-15-pro has been changed" in rows(plan.out)["bundle:iphone-15-pro"]
    assert workspace("recipe=phone").actions == []
    assert document.read_text() == before
    (bundle / "Resources" / "extra").write_text("not ours")
    assert to_run(workspace("plan", "recipe=phone").out) == ["bundle:iphone-15-pro"]


def test_an_output_that_is_written_into_is_made_again_even_where_it_is_a_link_to_the_cache(workspace: Any) -> None:
    workspace("recipe=phone")
    document = workspace.root / "build/phone/iphone-15-pro/bundle.json"
    before = document.read_text()
    document.chmod(0o644)
    document.write_text("tampered")
    assert to_run(workspace("plan", "recipe=phone").out) == ["bundle:iphone-15-pro"]
    assert workspace("recipe=phone").status == 0
    assert document.read_text() == before
    assert to_run(workspace("plan", "recipe=phone").out) == []


def test_a_blob_that_is_tampered_with_is_made_again(workspace: Any) -> None:
    workspace("recipe=phone")
    store = workspace.store()
    keys = store.slots()
    result = store.recorded(keys["phone/convert:unet"])
    assert result is not None
    places = store.locate(result.tree)
    assert places is not None
    blob = places["unet.mlpackage/weights"]
    size = blob.stat().st_size
    blob.chmod(0o644)
    blob.write_bytes(b"x" * size)
    plan = workspace("plan", "recipe=phone")
    assert "its result in the cache is damaged" in rows(plan.out)["convert:unet"]
    assert workspace("recipe=phone").actions == ["convert:unet"], "the same bytes come out, so nothing follows"


def test_a_stage_of_another_version_runs_again_and_an_equal_result_ends_it(
    workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace("recipe=phone")
    original = stages.load_stage

    def newer(name: str) -> stages.Stage:
        stage = original(name)
        return replace(stage, version=stage.version + 1) if name == "convert" else stage

    monkeypatch.setattr(stages, "load_stage", newer)
    plan = workspace("plan", "recipe=phone")
    version = original("convert").version
    assert f"stage convert: version {version} → {version + 1}" in rows(plan.out)["convert:unet"]
    assert "after convert:unet" in rows(plan.out)["quantize:unet"]
    built = workspace("recipe=phone")
    assert sorted(built.actions) == ["convert:text_encoder", "convert:unet", "convert:vae_decoder"]


def test_another_tool_version_is_told(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace("recipe=phone")
    original = action.installed_version
    monkeypatch.setattr(action, "installed_version", lambda name: "99.1" if name == "torch" else original(name))
    plan = workspace("plan", "recipe=phone")
    assert f"torch: {original('torch')} → 99.1" in rows(plan.out)["convert:unet"]


def test_verify_off_leaves_every_comparison_out(workspace: Any) -> None:
    built = workspace("recipe=phone", "verify=off")
    assert built.status == 0
    assert not any(name.startswith(("verify:", "reference:")) for name in built.actions)
    plan = workspace("plan", "recipe=phone")
    assert "verified: no → yes" in rows(plan.out)["bundle:iphone-15-pro"]


def test_two_recipes_of_one_model_share_what_they_can(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(name="small", quantization="{unet: 4, text_encoder: 8}")
    plan = workspace("plan", "recipe=small")
    shared = rows(plan.out)
    for name in ("source:unet", "convert:text_encoder", "convert:vae_decoder", "convert:unet"):
        assert shared[name].startswith("cached"), name
        assert "recipe phone" in shared[name], name
    assert "recipe phone" not in shared["quantize:unet"]
    built = workspace("recipe=small")
    assert not any(name.startswith("convert:") for name in built.actions)


def test_source_on_the_command_line_takes_the_place_of_the_models_version(workspace: Any, tmp_path: Path) -> None:
    workspace.recipe(name="hub", model="{version: org/model, revision: " + "a" * 40 + "}")
    built = workspace("recipe=hub", "source=checkpoint")
    assert built.status == 0, built.err
    elsewhere = tmp_path / "elsewhere" / "checkpoint"
    shutil.copytree(workspace.root / "checkpoint", elsewhere)
    assert workspace("recipe=hub", f"source={elsewhere}").actions == [], "content counts, not paths"


def test_a_bundle_of_a_users_own_weights_does_not_say_that_they_are_the_recipes(workspace: Any) -> None:
    for version in ("org/model, revision: " + "a" * 40, '"builtin:tiny-sd"', '"builtin:shapes"'):
        workspace.recipe(name="hub", model=f"{{version: {version}}}")
        plan = make_plan(parse_options({"recipe": "hub", "source": "checkpoint"}))
        described = plan.graph["bundle:iphone-15-pro"].parameters["model"]
        assert described == {"version": "checkpoint", "revision": None, "source": "directory"}


def test_nothing_in_a_key_is_a_path(workspace: Any) -> None:
    workspace("recipe=phone")
    for path in (workspace.cache / "actions").rglob("*.key.json"):
        assert str(workspace.root) not in path.read_text()
        assert "checkpoint/" not in path.read_text()


def test_a_plan_writes_nothing(workspace: Any) -> None:
    before = workspace.files()
    assert workspace("plan", "recipe=phone").status == 0
    assert workspace.files() == before
    assert not workspace.cache.exists()
    workspace("recipe=phone")
    shutil.rmtree(workspace.root / "build")
    workspace.recipe(quantization="{unet: 8}")
    (workspace.root / "checkpoint/vae/config.json").write_text(json.dumps(CONFIGS["vae"] | {"more": 1}))
    before = workspace.files()
    assert workspace("plan", "recipe=phone").status == 0
    assert workspace.files() == before


def test_what_turns_out_to_be_nothing_is_no_input(workspace: Any) -> None:
    assert "prediction:unet" in workspace("recipe=phone").actions
    assert inputs_of(workspace, "convert:unet") == {"checkpoint"}
    assert "prediction" not in inputs_of(workspace, "bundle:iphone-15-pro")
    # As long as nothing is to be made of the prediction, the models are those of a recipe that never asks.
    workspace.recipe(unet="{batch: 2, chunks: 2, prediction: checkpoint}")
    assert workspace("recipe=phone").actions == []


def test_a_checkpoint_that_comes_to_predict_velocity_is_converted_anew(workspace: Any) -> None:
    workspace("recipe=phone")
    scheduler = workspace.root / "checkpoint/scheduler/scheduler_config.json"
    scheduler.write_text('{"prediction_type": "v_prediction"}')
    ran = workspace("recipe=phone").actions
    assert {"prediction:unet", "convert:unet", "reference:unet", "bundle:iphone-15-pro"} <= {*ran}
    assert "convert:vae_decoder" not in ran
    assert inputs_of(workspace, "convert:unet") == {"checkpoint", "prediction"}
    assert "prediction" in inputs_of(workspace, "bundle:iphone-15-pro")
    assert workspace("recipe=phone").actions == []


def inputs_of(workspace: Any, name: str) -> set[str]:
    """The inputs in the newest key document of an action."""
    key = workspace.store().slot_read(f"phone/{name}")
    return {*key["inputs"]}
