"""Verification passes what conversion makes, and catches what it must never let through."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdbuild.builtin import tiny
from sdbuild.stages import chunk, convert, quantize, reference, verify
from sdbuild.stages.advice import what_would_pass
from sdbuild.stages.notes import take_notes
from sdbuild.stages.verify import VerificationError
from tests.stages.faults import copy_artifact, edit_epsilons, edit_weight
from tests.stages.models import palette

SIX_BITS = {"bits": 6, "method": "palette"}
INTERFACE = {
    "component": "unet",
    "latent_height": 8,
    "latent_width": 16,
    "text_sequence_length": 77,
    "batch": 1,
    "controlnet_ready": False,
}


def ignore(fraction: float, message: str) -> None:
    assert 0 <= fraction <= 1, message


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint")
    tiny.generate("tiny-sd", out)
    return out


@pytest.fixture(scope="module")
def artifacts(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The converted UNet, its palettized and chunked forms, and the original's answers."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("converted", "quantized", "chunked", "answers")}
    parameters = {"precision": "float16", "deployment_target": "iOS16", "attention_implementation": "SPLIT_EINSUM"}
    convert.run({"checkpoint": checkpoint / "unet"}, INTERFACE | parameters, made["converted"], ignore)
    quantize.run({"package": made["converted"]}, palette(6), made["quantized"], ignore)
    chunk.run({"package": made["quantized"]}, {}, made["chunked"], ignore)
    inputs = {"checkpoint": checkpoint / "unet"} | {
        name: checkpoint / name for name in ("scheduler", "text_encoder", "tokenizer")
    }
    answers = INTERFACE | {"precision": "float16", "samples": 2, "seed": 0}
    reference.run(inputs, answers, made["answers"], ignore)
    return made


def run_verify(artifacts: dict[str, Path], package: Path, out: Path, **changes: Any) -> dict[str, Any]:
    parameters = {
        "component": "unet",
        "after": "convert",
        "precision": "float16",
        "bits": None,
        "method": None,
        "gates": {},
    } | changes
    inputs = {"package": package, "reference": artifacts["answers"], "whole": artifacts["quantized"]}
    out.mkdir(exist_ok=True)
    verify.run(inputs, parameters, out, ignore)
    document: dict[str, Any] = json.loads((out / verify.DOCUMENT).read_text())
    return document | {"figures": take_notes(out)["outputs"]}


def test_a_conversion_passes(artifacts: dict[str, Path], tmp_path: Path) -> None:
    document = run_verify(artifacts, artifacts["converted"], tmp_path)
    figures = document.pop("figures")["noise_pred"]
    assert figures["structure_db"] >= 100
    assert 45 <= figures["signal_db"] < 100
    assert document == {
        "after": "convert",
        "samples": 2,
        "gates": {"structure_db": 100.0, "signal_db": 45.0},
        "outputs": ["noise_pred"],
        "overflows": 0,
    }, "figures differ between processors, and a bundle does not"


def test_palettized_and_chunked_packages_pass(artifacts: dict[str, Path], tmp_path: Path) -> None:
    quantized = run_verify(artifacts, artifacts["quantized"], tmp_path / "a", after="quantize", **SIX_BITS)
    chunked = run_verify(artifacts, artifacts["chunked"], tmp_path / "b", after="chunk", **SIX_BITS)
    assert chunked["chunks_equal_whole"] is True
    assert chunked["figures"] == quantized["figures"]


def test_a_palettized_model_that_lost_too_much_says_which_tensors_and_what_would_pass(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(VerificationError) as caught:
        run_verify(
            artifacts,
            artifacts["quantized"],
            tmp_path,
            after="quantize",
            bits=6,
            method="palette",
            gates={"palettized_db": 60},
        )
    text = str(caught.value)
    assert "the tensors that lost most:" in text
    assert ", 6 bits): " in text
    assert "what would pass: " in text
    assert "quantization: {unet: none} keeps half precision" in text
    assert re.search(r"verify: \{unet: \{palettized_db: \d+\}\} accepts this loss", text)
    assert "half precision is the cause" not in text


def test_more_bits_are_advised_only_where_they_would_pass() -> None:
    gates = {2: 2.0, 4: 10.0, 6: 20.0, 8: 30.0}
    assert "{unet: 4}" in what_would_pass("unet", 2, 1.0, gates)  # 1 + 12 dB: 4 bits ask for 10
    assert "{unet: 8}" in what_would_pass("unet", 6, 19.0, gates)  # 19 + 12 dB: 8 bits ask for 30
    assert "{unet: 8}" not in what_would_pass("unet", 6, 3.0, gates)
    assert "palettized_db: 0" in what_would_pass("unet", 8, -4.0, gates)


FAULTS = {
    "flipped sign": ("mid_block_resnets_0_conv1_weight", lambda weight: -weight),
    "zeroed bias": ("conv_in_bias", lambda bias: np.zeros_like(bias)),
    "swapped heads": (
        "mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0_weight",
        lambda weight: np.concatenate([weight[:, 16:32], weight[:, :16], weight[:, 32:]], axis=1),
    ),
    "one wrong element": ("conv_out_weight", lambda weight: _with_one_changed(weight)),
}


def _with_one_changed(weight: np.ndarray) -> np.ndarray:
    changed = weight.copy()
    changed.flat[0] += 0.01
    return changed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_weight_is_caught(fault: str, artifacts: dict[str, Path], tmp_path: Path) -> None:
    broken = copy_artifact(artifacts["converted"], tmp_path / "broken")
    edit_weight(broken, *FAULTS[fault])
    with pytest.raises(VerificationError, match="noise_pred: structure"):
        run_verify(artifacts, broken, tmp_path / "out")


def test_a_wrong_epsilon_is_caught(artifacts: dict[str, Path], tmp_path: Path) -> None:
    broken = copy_artifact(artifacts["converted"], tmp_path / "broken")
    edit_epsilons(broken, 10)
    with pytest.raises(VerificationError, match="noise_pred: structure"):
        run_verify(artifacts, broken, tmp_path / "out")


def test_a_failure_names_figures_and_operations_and_leaves_no_document(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(VerificationError) as caught:
        run_verify(artifacts, artifacts["converted"], tmp_path, gates={"signal_db": "90.5"})
    message = str(caught.value)
    assert "unet after convert" in message
    assert "noise_pred: signal" in message
    assert "below 90.5 dB" in message
    assert "dB lost" in message
    assert "blocks" in message
    assert not (tmp_path / verify.DOCUMENT).exists()


def test_chunks_that_are_not_the_whole_are_caught(artifacts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="to the last bit"):
        run_verify(
            artifacts | {"quantized": artifacts["converted"]},
            artifacts["chunked"],
            tmp_path,
            after="chunk",
            bits=6,
            method="palette",
        )


def test_an_overflow_is_reported_and_float32_cures_it(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    vae = copy_artifact(checkpoint / "vae", tmp_path / "vae")
    weights = load_file(vae / "diffusion_pytorch_model.safetensors")
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        weights[name] = weights[name] * 30000
    save_file(weights, vae / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    interface = {"component": "vae_decoder", "latent_height": 8, "latent_width": 8}
    for precision in ("float16", "float32"):
        made = {name: tmp_path / f"{name}-{precision}" for name in ("package", "answers", "out")}
        for path in made.values():
            path.mkdir()
        conversion = interface | {"precision": precision, "deployment_target": "iOS16"}
        convert.run({"checkpoint": vae}, conversion, made["package"], ignore)
        answers = interface | {"precision": precision, "samples": 1, "seed": 0}
        reference.run({"checkpoint": vae}, answers, made["answers"], ignore)
        parameters = {
            "component": "vae_decoder",
            "after": "convert",
            "precision": precision,
            "bits": None,
            "method": None,
            "gates": {},
        }
        inputs = {"package": made["package"], "reference": made["answers"]}
        if precision == "float16":
            with pytest.raises(VerificationError, match="overflow half precision") as caught:
                verify.run(inputs, parameters, made["out"], ignore)
            assert "decoder.conv_in" in str(caught.value)
            assert "precision: {vae_decoder: float32}" in str(caught.value)
        else:
            verify.run(inputs, parameters, made["out"], ignore)
            assert (made["out"] / verify.DOCUMENT).is_file()
            assert take_notes(made["out"])["outputs"]["image"]["structure_db"] >= 100
