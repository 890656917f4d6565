"""Folders of ComfyUI and AUTOMATIC1111 as sources: where names are looked up, and what is said of those not found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sdbuild.plan.errors import PlanError
from sdbuild.plan.libraries import find_in_library
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from tests.models import ldm
from tests.plan.test_sources import TOKENIZER, write

COMFY = {
    "model": "models/checkpoints/sdxl/base_v1.safetensors",
    "denoiser": "models/diffusion_models/dmd2.safetensors",
    "vae": "models/vae/ft-mse.pt",
    "loras": "models/loras/styles/pixel.safetensors",
    "controlnets": "models/controlnet/canny.pth",
    "textual_inversions": "models/embeddings/toy.pt",
}
A1111 = {
    "model": "models/Stable-diffusion/base.ckpt",
    "vae": "models/VAE/ft-mse.vae.pt",
    "loras": "models/Lora/pixel.safetensors",
    "controlnets": "extensions/sd-webui-controlnet/models/canny.safetensors",
    "textual_inversions": "embeddings/toy.bin",
}
PROGRAMS = {"comfy": ("SDBUILD_COMFY", COMFY), "a1111": ("SDBUILD_A1111", A1111)}


def make(root: Path, files: dict[str, str]) -> Path:
    for name in files.values():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"weights")
    return root


@pytest.mark.parametrize(
    ("program", "role"), [(program, role) for program, (_, files) in PROGRAMS.items() for role in files]
)
def test_every_kind_by_all_its_spellings(
    program: str, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, files = PROGRAMS[program]
    root = make(tmp_path / "program", files)
    monkeypatch.setenv(variable, str(root))
    path = root / files[role]
    folder = "/".join(Path(files[role]).parts[: 4 if files[role].startswith("extensions") else 2])
    folder = "embeddings" if files[role].startswith("embeddings") else folder.removesuffix(f"/{path.name}")
    whole = path.relative_to(root / folder).as_posix()
    for name in (whole, path.name, path.stem, whole.removesuffix(path.suffix)):
        assert find_in_library(f"{program}:{name}", role) == path


def test_the_models_folder_itself_and_several_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path / "first", {"vae": COMFY["vae"]})
    second = make(tmp_path / "second", {"loras": COMFY["loras"]})
    monkeypatch.setenv("SDBUILD_COMFY", os.pathsep.join([str(first / "models"), str(second)]))
    assert find_in_library("comfy:ft-mse", "vae") == first / COMFY["vae"]
    assert find_in_library("comfy:pixel", "loras") == second / COMFY["loras"]


def test_a_name_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBUILD_COMFY", str(make(tmp_path, COMFY)))
    with pytest.raises(PlanError, match=r"comfy:pixle: no such file in .*models/loras; did you mean 'pixel'\?"):
        find_in_library("comfy:pixle", "loras")
    with pytest.raises(PlanError, match=r"ComfyUI keeps no tokenizer; name a Hub id or a directory"):
        find_in_library("comfy:base_v1", "tokenizer")


def test_a_name_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"one": "models/loras/a/x.safetensors", "other": "models/loras/b/x.safetensors"}
    monkeypatch.setenv("SDBUILD_COMFY", str(make(tmp_path, files)))
    with pytest.raises(PlanError, match=r"several of that name: a/x.safetensors, b/x.safetensors; write one of these"):
        find_in_library("comfy:x", "loras")
    assert find_in_library("comfy:b/x.safetensors", "loras") == tmp_path / files["other"]


def test_where_the_program_is_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDBUILD_COMFY", raising=False)
    with pytest.raises(PlanError, match="set SDBUILD_COMFY to its folder"):
        find_in_library("comfy:x", "vae")
    monkeypatch.setenv("SDBUILD_COMFY", str(tmp_path / "nowhere"))
    with pytest.raises(PlanError, match=r"ComfyUI keeps VAEs in .*nowhere/models/vae .*there is no such folder"):
        find_in_library("comfy:x", "vae")


def test_a_recipe_of_names(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(workspace.root / "ComfyUI", COMFY)
    write(root / COMFY["model"], ldm.TINY_SD1)
    monkeypatch.setenv("SDBUILD_COMFY", str(root))
    workspace.recipe(
        model="{version: comfy:base_v1}",
        tokenizer=TOKENIZER,
        vae="{version: comfy:ft-mse}",
        loras="[{version: comfy:styles/pixel}]",
        textual_inversions="[{version: comfy:toy, token: toy}]",
    )
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    for task, role in (("checkpoint", "model"), ("checkpoint-vae", "vae"), ("lora-1", "loras")):
        assert [*graph[f"source:{task}"].files.values()] == [root / COMFY[role]]
    assert [*graph["source:embedding-1"].files.values()] == [root / COMFY["textual_inversions"]]
    model = graph["bundle:iphone-15-pro"].parameters["model"]
    assert model == {"version": "base_v1.safetensors", "revision": None, "source": "file"}


def test_a_name_on_the_command_line(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(workspace.root / "ComfyUI", COMFY)
    write(root / COMFY["model"], ldm.TINY_SD1)
    monkeypatch.setenv("SDBUILD_COMFY", str(root))
    workspace.recipe()
    assert parse_options({"recipe": "phone", "source": "comfy:base_v1"}).source == root / COMFY["model"]
    ran = workspace("plan", "recipe=phone", "source=comfy:base_v2")
    assert ran.status == 2
    assert "did you mean 'base_v1'" in ran.err


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", ""])
def test_names_stay_in_their_folders(workspace: Any, name: str) -> None:
    workspace.recipe(vae=f'{{version: "comfy:{name}"}}')
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert "not the name of a model" in ran.err
