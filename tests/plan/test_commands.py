"""The commands as people type them: exit statuses, messages, what goes to which stream."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdbuild.console import program
from tests.plan.fakes import CONFIGS, weights

REAL_RUN = program.LocalExecutor.run
TWO_TARGETS = {"targets": "[iphone-15-pro, mac-studio-m2-ultra]"}


def test_an_unknown_variable_names_the_nearest(workspace: Any) -> None:
    ran = workspace("recpie=phone")
    assert ran.status == 2
    assert "'recpie='; did you mean 'recipe'?" in ran.err
    assert ran.out == ""
    assert not workspace.cache.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=phnoe"], "did you mean `phone`?"),
        (["recipe=phone", "target=iphone-15-por"], "did you mean 'iphone-15-pro'?"),
        (["recipe="], "'recipe=' has no value"),
        (["recipe=phone", "verify=never"], "write verify=on or verify=off"),
        (["recipe=phone", "source=nowhere"], "no such directory"),
        (["recipe=phone", "convert:unte"], "did you mean 'convert:unet'?"),
        (["lits", "recipe=phone"], "did you mean 'list'?"),
        (["info", "recipe=phone", "convert:unte"], "'convert:unte' is not a task"),
        (["plan", "recipe=phone", "extra"], "unknown word 'extra'"),
        (["targets", "recipe=phone"], "unknown variable 'recipe='"),
        (["--no-such-option", "recipe=phone"], "no-such-option"),
    ],
)
def test_a_mistake_on_the_command_line_is_status_2_without_traceback(
    workspace: Any, words: list[str], message: str
) -> None:
    ran = workspace(*words)
    assert ran.status == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert ran.actions == []
    assert not workspace.cache.exists(), "nothing is written"
    assert not (workspace.root / "build").exists()


def test_a_broken_recipe_is_status_2_with_its_place(workspace: Any) -> None:
    workspace.recipe(unet="{batch: 3}")
    for command in ([], ["plan"], ["list"], ["check"]):
        ran = workspace(*command, "recipe=phone")
        assert ran.status == 2
        assert "recipes/phone.yaml:" in ran.err
    assert not workspace.cache.exists()


def test_preflight_ends_a_build_before_any_work(workspace: Any) -> None:
    workspace.recipe(latent="{height: 63, width: 64}")
    ran = workspace("recipe=phone")
    assert ran.status == 2
    assert ran.actions == []
    assert "recipes/phone.yaml:" in ran.err


def test_preflight_comes_again_when_the_checkpoint_is_there(workspace: Any) -> None:
    """What the checkpoint lacks shows only in its own files."""
    workspace.recipe(
        model="{version: 'builtin:tiny-sd'}", components="[text_encoder, unet, vae_decoder, safety_checker]"
    )
    ran = workspace("recipe=phone")
    assert ran.status == 2
    assert not [name for name in ran.actions if not name.startswith("source:")]
    assert "safety_checker" in ran.err
    again = workspace("recipe=phone")
    assert again.status == 2
    assert again.actions == [], "this time the files are at hand"


def test_a_failed_action_is_status_1_and_others_may_go_on(workspace: Any) -> None:
    workspace.work.failing["convert:unet"] = "convert:unet failed: out of luck\n  log: somewhere"
    stopped = workspace("recipe=phone")
    assert stopped.status == 1
    assert "out of luck" in stopped.err
    assert "log: somewhere" in stopped.err
    assert "1 failed" in stopped.err
    assert "Traceback" not in stopped.err
    went_on = workspace("--continue", "recipe=phone")
    assert went_on.status == 1
    assert "convert:vae_decoder" in went_on.actions
    assert "bundle:iphone-15-pro was not run" in went_on.err
    workspace.work.failing.clear()
    mended = workspace("recipe=phone")
    assert mended.status == 0
    assert "convert:vae_decoder" not in mended.actions


def test_a_task_is_selected_by_name_with_what_it_needs(workspace: Any) -> None:
    ran = workspace("recipe=phone", "quantize:unet")
    assert ran.status == 0, ran.err
    assert ran.actions == ["prediction:unet", "convert:unet", "quantize:unet"]
    assert not (workspace.root / "build").exists()


def test_targets_that_differ_have_tasks_of_their_own(workspace: Any) -> None:
    workspace.recipe(**TWO_TARGETS, overrides="{mac-studio-m2-ultra: {attention_implementation: ORIGINAL}}")
    listed = workspace("list", "--all", "-q", "recipe=phone").out.split()
    assert "convert:unet@iphone-15-pro" in listed
    assert "convert:unet@mac-studio-m2-ultra" in listed
    assert "convert:text_encoder" in listed
    one = workspace("list", "--all", "-q", "recipe=phone", "target=mac-studio-m2-ultra").out.split()
    assert "convert:unet@mac-studio-m2-ultra" in one, "names do not depend on what is selected"
    assert "convert:unet@iphone-15-pro" not in one
    assert workspace("recipe=phone", "target=mac-studio-m2-ultra").status == 0
    assert not (workspace.root / "build/phone/iphone-15-pro").exists()
    rest = workspace("recipe=phone")
    assert "convert:text_encoder" not in rest.actions
    # The name that the task has with one target goes on to mean it, of all targets.
    assert workspace("forget", "recipe=phone", "convert:unet").out.split() == [
        *("forgetting", "convert:unet@iphone-15-pro", "forgetting", "convert:unet@mac-studio-m2-ultra")
    ]
    again = workspace("recipe=phone", "convert:unet")
    assert again.status == 0, again.err
    assert sorted(again.actions) == ["convert:unet@iphone-15-pro", "convert:unet@mac-studio-m2-ultra"]


def test_two_at_a_time(workspace: Any) -> None:
    workspace.recipe(**TWO_TARGETS)
    ran = workspace("-n", "2", "recipe=phone")
    assert ran.status == 0, ran.err
    assert len(ran.actions) == len(set(ran.actions))
    assert workspace("-n", "2", "recipe=phone").actions == []


def test_clean_takes_bundles_away_and_leaves_the_cache(workspace: Any) -> None:
    workspace("recipe=phone")
    dry = workspace("clean", "-n", "recipe=phone")
    assert dry.status == 0
    assert (workspace.root / "build/phone/iphone-15-pro/bundle.json").exists()
    assert workspace("clean", "recipe=phone").status == 0
    assert not (workspace.root / "build").exists()
    assert workspace("recipe=phone").actions == []


def test_forget_makes_a_task_run_again(workspace: Any) -> None:
    workspace("recipe=phone")
    forgotten = workspace("forget", "recipe=phone", "convert:unet")
    assert forgotten.status == 0
    assert "forgetting convert:unet" in forgotten.out
    assert workspace("recipe=phone").actions == ["convert:unet"]
    workspace("forget", "--all", "recipe=phone")
    assert "bundle:iphone-15-pro" in workspace("recipe=phone").actions


def test_always_runs_what_is_cached(workspace: Any) -> None:
    workspace("recipe=phone")
    assert "convert:unet" in workspace("-a", "recipe=phone", "convert:unet").actions


def test_ignore_skips_a_task_of_one_recipe(workspace: Any) -> None:
    workspace.recipe(name="other", quantization="{unet: 4}")
    assert workspace("ignore", "recipe=phone", "verify:convert-unet").status == 0
    ran = workspace("recipe=phone", "verify:convert-unet")
    assert "!! verify:convert-unet" in ran.out
    assert "verify:convert-unet" in workspace("recipe=other", "verify:convert-unet").actions
    workspace("forget", "recipe=phone", "verify:convert-unet")
    assert "!! verify" not in workspace("recipe=phone", "verify:convert-unet").out


def test_info_tells_parameters_inputs_and_why(workspace: Any) -> None:
    workspace("recipe=phone")
    told = workspace("info", "recipe=phone", "quantize:unet")
    assert told.status == 0
    assert "bits = 6" in told.out
    assert "package ← convert:unet" in told.out
    assert "up-to-date" in told.out
    workspace.recipe(quantization="{unet: 4}")
    assert "bits: 6 → 4" in workspace("info", "recipe=phone", "quantize:unet").out


def test_list_shows_every_task_with_its_purpose_and_status(workspace: Any) -> None:
    listed = workspace("list", "--all", "--status", "recipe=phone").out
    line = next(line for line in listed.splitlines() if " convert:unet " in line)
    assert line.startswith("R ")
    assert "unet as a Core ML package" in line
    workspace("recipe=phone")
    listed = workspace("list", "--all", "--status", "recipe=phone").out
    assert next(line for line in listed.splitlines() if " convert:unet " in line).startswith("U ")


def test_tables_of_recipes_and_targets(workspace: Any) -> None:
    recipes = workspace("recipes")
    assert recipes.status == 0
    assert recipes.out.splitlines()[0].split() == ["recipe", "model", "targets", "description"]
    assert any(line.startswith("phone ") for line in recipes.out.splitlines()), "one's own"
    assert any(line.startswith("tiny-sd ") for line in recipes.out.splitlines()), "and the checked-in ones"
    targets = workspace("targets")
    assert any("A17 Pro" in line for line in targets.out.splitlines())
    assert targets.err == ""


def test_check_tells_all_mistakes_of_all_files(workspace: Any) -> None:
    workspace.recipe(name="one", unet="{batch: 3}")
    workspace.recipe(name="two", latent="{height: 63, width: 64}")
    ran = workspace("check")
    assert ran.status == 2
    assert "one.yaml" in ran.err
    assert "two.yaml" in ran.err
    assert "2 with mistakes" in ran.out
    assert workspace("check", "recipe=phone").status == 0


def test_lint_asks_for_a_bundle_and_names_violations(workspace: Any) -> None:
    missing = workspace("lint", "recipe=phone")
    assert missing.status == 2
    assert "no bundle here" in missing.err
    workspace("recipe=phone")
    ran = workspace("lint", "recipe=phone")
    assert ran.status == 1, "the fake bundle holds no real model"
    assert "missing-model" in ran.out


def test_out_is_relative_to_the_users_folder(workspace: Any) -> None:
    assert workspace("recipe=phone", "out=elsewhere/here").status == 0
    assert (workspace.root / "elsewhere/here/phone/iphone-15-pro/bundle.json").is_file()


def test_a_recipe_may_be_a_path(workspace: Any) -> None:
    assert workspace("recipe=recipes/phone.yaml", "convert:unet").status == 0
    assert workspace("recipe=phone", "convert:unet").actions == []


def test_controlnets_have_a_unet_of_their_own(workspace: Any) -> None:
    folder = workspace.root / "canny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIGS["controlnet"]))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights("controlnet", "canny"))
    workspace.recipe(controlnets="[{version: ../canny}]")
    ran = workspace("recipe=phone")
    assert ran.status == 0, ran.err
    expected = {"convert:unet", "convert:controlled_unet", "chunk:controlled_unet", "convert:controlnet-Canny"}
    assert expected <= set(ran.actions)


def test_an_action_runs_in_a_process_of_its_own_and_leaves_a_log(
    workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program.LocalExecutor, "run", REAL_RUN)
    ran = workspace("recipe=tiny-sd", "source:scheduler")
    assert ran.status == 0, ran.err
    assert "1 ran" in ran.err
    told = workspace("info", "recipe=tiny-sd", "source:scheduler").out
    (log,) = [line.partition(": ")[2] for line in told.splitlines() if line.startswith("log ")]
    assert Path(log).is_file()
    assert "1 cached" in workspace("recipe=tiny-sd", "source:scheduler").err


HEAVY = ("torch", "coremltools", "diffusers", "transformers", "numpy", "rich", "huggingface_hub", "scipy")


@pytest.mark.parametrize("program", ["sdbuild", "doit"])
def test_an_up_to_date_build_is_quick_and_loads_nothing_heavy(workspace: Any, program: str, tmp_path: Path) -> None:
    workspace("recipe=phone")
    repository = Path(__file__).parents[2]
    arguments = [f"recipe={workspace.root / 'recipes/phone.yaml'}", f"out={workspace.root / 'build'}"]
    module = {"sdbuild": "sdbuild.cli", "doit": "doit"}[program]
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=repository if program == "doit" else workspace.root,
        env={**os.environ, "PYTHONPATH": str(repository)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "-- bundle:iphone-15-pro" in ran.stdout
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    assert not [name for name in HEAVY if name in loaded]
    assert not (repository / "sdbuild" / ".doit.db").exists()


def test_doit_in_the_checkout_is_the_same_program(workspace: Any) -> None:
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}

    def doit(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "doit", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=repository, env=environment, check=False)

    assert doit("plan", "recipe=tiny-sd").returncode == 0
    assert doit("check").returncode == 0
    wrong = doit("recpie=tiny-sd")
    assert wrong.returncode == 2
    assert "did you mean 'recipe'?" in wrong.stderr
    assert doit("recipe=no-such-recipe").returncode == 2
    assert doit("list", "recipe=tiny-sd").stdout.startswith("account")
    assert not workspace.cache.exists()


def test_a_warning_is_written_once_and_the_build_goes_on(workspace: Any) -> None:
    scheduler = workspace.root / "checkpoint/scheduler/scheduler_config.json"
    scheduler.write_text('{"_class_name": "DDIMScheduler", "beta_schedule": "linear", "beta_start": 0.001}')
    ran = workspace("recipe=phone")
    assert ran.status == 0, ran.err
    assert ran.err.count("warning: recipes/phone.yaml:") == 1
    assert "the Swift package cannot draw with this checkpoint: it was trained with linear betas" in ran.err
    assert "[schedule-not-of-the-swift-package]" in ran.err
    workspace.recipe(allow="[schedule-not-of-the-swift-package]")
    assert "warning: recipes/phone.yaml" not in workspace("plan", "recipe=phone").err
