"""The reference stage: realistic inputs, the original's answers to them, and packages of SDXL held to both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdbuild.builtin import tiny
from sdbuild.stages import reference, verify
from sdbuild.stages.notes import take_notes
from tests.stages.models import CONVERSION, UNET, Recorder, contents, converted, made_by_worker, top_level

TEXTS = {"text_sequence_length": 77, "family": "sdxl"}
XL_UNET = UNET | {"batch": 2}
COMPONENTS: dict[str, dict[str, Any]] = {
    "text_encoder": TEXTS | {"component": "text_encoder"},
    "text_encoder_2": TEXTS | {"component": "text_encoder_2"},
    "unet": XL_UNET,
}
CONDITIONING = ("scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint")
    tiny.generate("tiny-sdxl", out)
    return out


def job(checkpoint: Path, component: str) -> tuple[dict[str, Path], dict[str, Any]]:
    """The stage's inputs and parameters."""
    inputs = {"checkpoint": checkpoint / component}
    if component == "unet":
        inputs |= {name: checkpoint / name for name in CONDITIONING}
    return inputs, COMPONENTS[component] | {"precision": "float16", "samples": 2, "seed": 0}


def answers(checkpoint: Path, component: str, out: Path, **changes: Any) -> dict[str, Any]:
    """Run the stage; returns the artifact's arrays by key."""
    from safetensors.numpy import load_file

    inputs, parameters = job(checkpoint, component)
    out.mkdir(exist_ok=True)
    reference.run(inputs, parameters | changes, out, Recorder())
    assert top_level(out) == [reference.SAMPLES]
    return dict(load_file(out / reference.SAMPLES))


@pytest.mark.parametrize("component", ["text_encoder_2", "unet"])
def test_a_build_s_worker_imports_less_and_answers_the_same(component: str, checkpoint: Path, tmp_path: Path) -> None:
    packages = (*reference.UNUSED, "diffusers", "transformers")
    alone = tmp_path / "alone"
    imported = made_by_worker("reference", *job(checkpoint, component), alone, packages)
    assert imported == ["diffusers", "transformers"]
    answers(checkpoint, component, tmp_path / "beside others")
    assert contents(alone) == contents(tmp_path / "beside others")


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_sdxl_package_does_what_the_original_does(component: str, checkpoint: Path, tmp_path: Path) -> None:
    parameters = COMPONENTS[component] | CONVERSION
    if component == "unet":
        parameters |= {"attention_implementation": "SPLIT_EINSUM"}
    package = converted(checkpoint / component, tmp_path / "package", **parameters)
    answers(checkpoint, component, tmp_path / "reference")
    gates: dict[str, Any] = {
        "component": component,
        "after": "convert",
        "precision": "float16",
        "bits": None,
        "method": None,
        "gates": {},
    }
    (tmp_path / "out").mkdir()
    verify.run({"package": package, "reference": tmp_path / "reference"}, gates, tmp_path / "out", Recorder())
    figures = take_notes(tmp_path / "out")["outputs"]
    assert figures
    assert all(entry["structure_db"] >= 100 and entry["signal_db"] >= 45 for entry in figures.values())


def test_a_denoiser_s_inputs_are_those_of_a_pipeline(checkpoint: Path, tmp_path: Path) -> None:
    arrays = answers(checkpoint, "unet", tmp_path, samples=3)
    names = {key.removeprefix("0/input/") for key in arrays if key.startswith("0/input/")}
    assert names == {"sample", "timestep", "encoder_hidden_states", "time_ids", "text_embeds"}
    steps = [float(arrays[f"{index}/input/timestep"][0]) for index in range(3)]
    assert steps == sorted(steps)
    assert len(set(steps)) == 3
    assert np.abs(arrays["0/input/encoder_hidden_states"]).max() > 0
    assert not np.array_equal(arrays["0/input/sample"], arrays["1/input/sample"])
    for kind in ("exact", "rounded"):
        assert arrays[f"0/{kind}/noise_pred"].shape == (2, 4, 8, 8)
    assert not np.array_equal(arrays["0/exact/noise_pred"], arrays["0/rounded/noise_pred"])


def test_the_same_seed_gives_the_same_file_and_another_another(checkpoint: Path, tmp_path: Path) -> None:
    files = []
    for index, seed in enumerate((0, 0, 1)):
        answers(checkpoint, "unet", tmp_path / str(index), seed=seed, precision="float32", samples=1)
        files.append((tmp_path / str(index) / reference.SAMPLES).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_float32_build_needs_no_rounded_answers(checkpoint: Path, tmp_path: Path) -> None:
    arrays = answers(checkpoint, "text_encoder", tmp_path, precision="float32")
    assert {key.split("/")[1] for key in arrays} == {"input", "exact"}
