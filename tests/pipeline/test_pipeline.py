"""What a pipeline refuses, what it tells of its pictures, and what the safety checker does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdbuild
from sdbuild.bundle.document import bundle_digest
from sdbuild.pipeline import Pipeline, PipelineError, Request, RequestError
from tests.pipeline.originals import NEGATIVE, PROMPT, photograph
from tests.pipeline.studio import Studio


@pytest.fixture
def changed(studio: Studio, tmp_path: Path) -> Callable[..., Pipeline]:
    """The bundle of `sd`, or of another recipe, with its document changed."""

    def change(edit: Callable[[dict[str, Any]], None], recipe: str = "sd") -> Pipeline:
        shutil.copytree(studio.bundle(recipe), tmp_path / "bundle")
        path = tmp_path / "bundle/bundle.json"
        document = json.loads(path.read_bytes())
        edit(document)
        path.chmod(0o644)
        path.write_text(json.dumps(document))
        return Pipeline.from_bundle(tmp_path / "bundle")

    return change


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least one step"),
        ({"image_count": 0}, "at least one picture"),
        ({"seed": -1}, "from 0 to 4294967295"),
        ({"seed": 2**32}, "from 0 to 4294967295"),
        ({"strength": 0.0}, "above 0"),
        ({"scheduler": "eulr"}, "did you mean 'euler'"),
        ({"rng": "numpi"}, "no such rng; did you mean 'numpy'"),
        ({"client": "swft"}, "no such client; did you mean 'swift'"),
        ({"configuration": {"orginalSize": 768}}, "no such setting; did you mean 'originalSize'"),
        ({"guidance_scale": float("nan")}, "a number is needed"),
        ({"sead": 1}, "no option 'sead'; did you mean 'seed'"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        Request.of(options)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "fp8"}, "fp32, fp16"), ({"backend": "mps"}, "torch, coreml"), ({"compute_unit": "GPU"}, "ALL")],
)
def test_ways_to_run_that_do_not_exist(studio: Studio, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Pipeline.from_bundle(studio.bundle("sd"), **options)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is no bundle"):
        sdbuild.Pipeline.from_bundle(tmp_path)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("TextEncoder", {}, "no text encoder; add text_encoder"),
        ("Unet", {}, "has no Unet; add unet"),
        ("VAEDecoder", {}, "add vae_decoder"),
        ("VAEEncoder", {"image": photograph()}, "add vae_encoder"),
    ],
)
def test_a_missing_model_is_told_before_anything_is_loaded(
    changed: Any, model: str, options: dict[str, Any], message: str
) -> None:
    pipeline = changed(lambda document: document["models"].pop(model))
    with pytest.raises(PipelineError, match=message):
        pipeline(PROMPT, **options)
    assert pipeline.bundle.loaded == ()


def test_an_unknown_controlnet(studio: Studio) -> None:
    with pytest.raises(PipelineError, match="has no ControlledUnet"):
        Pipeline.from_bundle(studio.bundle("sd"))(PROMPT, controlnet_images={"Edges": photograph()})
    with pytest.raises(PipelineError, match=r"'Edge'; did you mean 'Edges'\?\n  the bundle has Edges, TinyControlnet"):
        Pipeline.from_bundle(studio.bundle("sd-controlled"))(PROMPT, controlnet_images={"Edge": photograph()})


def test_t2i_adapters_that_are_not_there(studio: Studio) -> None:
    with pytest.raises(
        PipelineError, match="has no AdaptedUnet, which T2I-Adapters need; list them under t2i_adapters"
    ):
        Pipeline.from_bundle(studio.bundle("sd"))(PROMPT, adapter_images={"TinyT2IAdapter": photograph()})
    adapted = Pipeline.from_bundle(studio.bundle("sd-adapted"))
    with pytest.raises(PipelineError, match="no T2I-Adapter called 'TinyT2IAdaptor'; did you mean 'TinyT2IAdapter'"):
        adapted(PROMPT, adapter_images={"TinyT2IAdaptor": photograph()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter_conditioning_scale": (1.0, 2.0)}, "1,2: 2 weights for 1 adapter images"),
        ({"adapter_conditioning_scale": float("nan")}, "numbers are needed"),
        ({"controlnet_images": {"B": photograph()}}, "not both; draw with one of them"),
    ],
)
def test_requests_with_t2i_adapters_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request.of({"adapter_images": {"A": photograph()}, **options})


def test_a_bundle_that_draws_with_controlnets_alone(changed: Any) -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["models"]["UnetChunk1"]

    with pytest.raises(PipelineError, match="give it ControlNet pictures, or add unet"):
        changed(edit, "sd-controlled")(PROMPT)


def test_inpainting_models_are_refused(changed: Any) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["models"]["Unet"]["inputs"][0]["shape"][1] = 9
        document["task"] = "inpainting"

    with pytest.raises(PipelineError, match="takes 9 channels, as inpainting"):
        changed(edit)(PROMPT)


def test_missing_vocabulary(changed: Any, tmp_path: Path) -> None:
    pipeline = changed(lambda document: None)
    (tmp_path / "bundle/Resources/merges.txt").unlink()
    with pytest.raises(PipelineError, match=r"lacks merges\.txt"):
        pipeline(PROMPT)


def test_an_sdxl_bundle_without_its_first_encoder(changed: Any) -> None:
    pipeline = changed(lambda document: document["models"].pop("TextEncoder"), "sdxl")
    with pytest.raises(PipelineError, match=r"width 96 .* takes 160"):
        pipeline(PROMPT, client="diffusers", steps=1)


def test_a_scheduler_that_diffusers_does_not_have(changed: Any) -> None:
    pipeline = changed(lambda document: document["scheduler"].update(_class_name="FutureScheduler"))
    with pytest.raises(PipelineError, match="FutureScheduler, which diffusers"):
        pipeline(PROMPT, client="diffusers")
    assert pipeline.bundle.loaded == ()


def test_a_compiled_model_needs_core_ml(changed: Any) -> None:
    pipeline = changed(lambda document: document["models"]["TextEncoder"].update(file="TextEncoder.mlmodelc"))
    with pytest.raises(PipelineError, match="on a Mac with backend=coreml"):
        pipeline(PROMPT)


def test_what_a_picture_tells(studio: Studio) -> None:
    pipeline = Pipeline.from_bundle(studio.bundle("sd"))
    (picture,) = pipeline(PROMPT, negative_prompt=NEGATIVE, seed=5, steps=2, guidance_scale=3.5, safety=False)
    assert picture.info == {
        "client": "swift",
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "seed": "5",
        "steps": "2",
        "guidance_scale": "3.5",
        "scheduler": "pndm",
        "rng": "numpy",
        "precision": "fp32",
        "bundle": bundle_digest(studio.bundle("sd")),
        "flagged": "false",
    }


def test_progress_and_warnings(studio: Studio) -> None:
    steps: list[tuple[int, int]] = []
    said: list[str] = []
    pipeline = Pipeline.from_bundle(studio.bundle("sd"))
    pipeline(
        ["a fox", "a fox " * 60],
        steps=2,
        scheduler="dpm",
        safety=False,
        on_step=lambda done, total: steps.append((done, total)),
        on_warning=said.append,
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (warning,) = said
    assert "TextEncoder takes 77 tokens" in warning


def test_a_flagged_picture_is_black(studio: Studio) -> None:
    """The checker of this checkpoint has thresholds that every picture is above."""
    pipeline = Pipeline.from_bundle(studio.bundle("sd"), reduce_memory=True)
    (flagged,) = pipeline(PROMPT, steps=2)
    assert flagged.info["flagged"] == "true"
    assert not np.asarray(flagged).any()
    (drawn,) = pipeline(PROMPT, steps=2, safety=False)
    assert drawn.info["flagged"] == "false"
    assert np.asarray(drawn).any()


def test_half_precision_rounds_what_a_package_declares_half(studio: Studio) -> None:
    """Nothing in a float32 package is rounded, whatever the precision of the runtime."""
    exact = Pipeline.from_bundle(studio.bundle("sd"))(PROMPT, steps=2, safety=False)
    half = Pipeline.from_bundle(studio.bundle("sd"), precision="fp16")(PROMPT, steps=2, safety=False)
    assert half[0].info["precision"] == "fp16"
    assert np.abs(np.asarray(exact[0], int) - np.asarray(half[0], int)).max() <= 2
