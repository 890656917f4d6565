"""`bundle.json` against the models: every lie is noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.bundle.document import read_document
from sdbuild.bundle.linter import lint_bundle
from sdbuild.bundle.linter.client import notes
from tests.bundle.bundles import SD, SDXL, Resources
from tests.stages.test_bundle import PARTS, XL_PARTS, build

Break = Callable[[dict[str, Any], Path], object]


def renamed_output(document: dict[str, Any], _: Path) -> None:
    document["models"]["Unet"]["outputs"][0]["name"] = "out"


def other_weights(_: dict[str, Any], bundle: Path) -> None:
    manifest = bundle / "Resources" / "Unet.mlpackage" / "Manifest.json"
    text = manifest.read_text().replace("1.0.0", "1.0.1")
    manifest.unlink()
    manifest.write_text(text)


def longer(_: dict[str, Any], bundle: Path) -> None:
    (bundle / "Resources" / "Unet.mlpackage" / "more").write_text("x")


def other_merges(_: dict[str, Any], bundle: Path) -> None:
    (bundle / "Resources" / "merges.txt").write_text("#version: 0.2\n")


def one_more_model(_: dict[str, Any], bundle: Path) -> None:
    Resources(bundle / "Resources", ".mlpackage").put("controlnet/Other", SD["controlnet/TinyControlnet"])


def inversion(*tokens: str, vectors: int = 1) -> dict[str, Any]:
    return {"textual_inversions": [{"token": tokens[0], "vectors": vectors, "tokens": tokens, "changes": []}]}


def setting(name: str, value: Any, part: str = "configuration") -> Break:
    return lambda document, _: document["swift_package"][part].update({name: value})


DOCUMENT_CASES: list[tuple[str, Break, str]] = [
    ("document", lambda d, _: d.update(format=0), "not of format 1"),
    ("document", lambda d, _: d.pop("models"), "malformed: KeyError"),
    ("document", lambda d, _: d.update(latent=3), "malformed"),
    ("document-models", lambda d, _: d["models"].pop("Unet"), "Unet: in Resources, but not listed"),
    ("document-models", lambda d, _: d["models"].update(Unet2=d["models"]["Unet"]), "Unet2: listed, but not"),
    ("document-models", lambda d, _: d["models"]["Unet"].update(file="Unet.mlmodelc"), "the file is Unet.mlpackage"),
    ("document-models", renamed_output, "other inputs or outputs"),
    ("document-models", one_more_model, "controlnet/Other: in Resources, but not listed"),
    ("document-digest", other_weights, "Unet.mlpackage: its content is not"),
    ("document-digest", longer, "bytes, bundle.json says"),
    ("document-digest", other_merges, "merges.txt: its content is not"),
    ("new-token", lambda d, _: d.update(inversion("<dog")), "merges.txt: <dog is read as < dog</w>"),
    ("new-token", lambda d, _: d.update(inversion("cat", "dog")), "textual_inversions, cat: 2 tokens for 1 vectors"),
    ("document", lambda d, _: d.update(textual_inversions=[{}]), "malformed: KeyError"),
    ("document-facts", lambda d, _: d.update(compiled=True), "compiled: says True, the models say False"),
    ("document-facts", lambda d, _: d.update(family="sdxl"), "family: says sdxl, the models say sd"),
    ("document-facts", lambda d, _: d["latent"].update(height=64), "latent.height: says 64, the models say 16"),
    ("document-facts", lambda d, _: d["image"].update(width=64), "image.width: says 64, the models say 96"),
    ("document-facts", lambda d, _: d["unet"].update(batch=1), "batch: says 1, the models say 2"),
    ("document-facts", lambda d, _: d["unet"].update(chunks=2), "chunks: says 2, the models say 1"),
    ("document-facts", lambda d, _: d.update(text_sequence_length=64), "says 64, the models say 77"),
    ("document-facts", lambda d, _: d.update(controlnets=[]), "controlnets: says none, the models say TinyControlnet"),
    ("document", lambda d, _: d.pop("vae_checkpoint"), "vae_checkpoint: Field required"),
    ("document", lambda d, _: d["models"]["Unet"].update(digest="md5:0"), "models.Unet.digest: String should match"),
    ("extensions", lambda d, _: d["extensions"].append("video"), "video; known are edm,"),
    ("prediction-type", lambda d, _: d.update(prediction_type="v_prediction"), "extensions lack v-prediction"),
    ("prediction-type", lambda d, _: d["scheduler"].update(prediction_type="v_prediction"), "the UNet gives epsilon"),
    ("prediction-type", lambda d, _: d["extensions"].append("v-prediction"), "epsilon, but extensions say v-pred"),
    ("prediction-type", lambda d, _: d.update(prediction_type="score"), "score; the package's schedulers take epsilon"),
    ("prediction-type", lambda d, _: d.update(family="sd3"), "epsilon, SD 3's is flow_prediction"),
    ("schedule", lambda d, _: d["scheduler"].update(beta_end=0.02), "extensions lack noise-schedule"),
    ("schedule", lambda d, _: d["scheduler"].update(rescale_betas_zero_snr=True), "extensions lack zero-terminal-snr"),
    ("schedule", lambda d, _: d["scheduler"].update(_class_name="EDMEulerScheduler"), "extensions lack edm"),
    ("schedule", lambda d, _: d["vae"].update(shift_factor=0.1), "extensions lack latent-shift"),
    ("schedule", lambda d, _: d["extensions"].append("edm"), "edm, which neither scheduler nor vae show"),
    ("settings", lambda d, _: d.pop("swift_package"), "no swift_package"),
    ("settings", setting("decoderScaleFactor", 0.13025), "decoderScaleFactor: 0.13025, must be 0.18215"),
    ("settings", setting("targetSize", 96.0), "targetSize: 96.0, must be 1024.0"),
    ("settings", setting("schedulerType", "discreteFlowScheduler"), "discreteFlowScheduler, must be pndmScheduler"),
    ("settings", setting("sharpness", 1), "configuration.sharpness: the package has no such setting"),
    ("settings", setting("controlNet", [], "initializer"), "controlNet: none, must be TinyControlnet"),
    (
        "settings",
        lambda d, _: d["swift_package"].update(pipeline="StableDiffusionXLPipeline"),
        "must be StableDiffusionP",
    ),
    ("settings", lambda d, _: d["models"].pop("SafetyChecker"), "disableSafety: False, must be True"),
]


def test_what_an_app_may_choose_is_its_own(tmp_path: Path) -> None:
    bundle = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    document = json.loads((bundle / "bundle.json").read_text())
    document["swift_package"]["configuration"] |= {
        "guidanceScale": 3.0,
        "schedulerType": "dpmSolverMultistepScheduler",
        "schedulerTimestepSpacing": "karras",
        "disableSafety": True,
        "rngType": "torchRNG",
    }
    (bundle / "bundle.json").write_text(json.dumps(document))
    assert lint_bundle(bundle) == []


def test_what_an_app_should_know_is_no_violation(tmp_path: Path) -> None:
    plain = read_document(build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd"))
    assert list(notes(plain)) == []
    wide = read_document(build(tmp_path / "in-xl", tmp_path / "out-xl", XL_PARTS, SDXL, "tiny-sdxl"))
    (note,) = notes(wide)
    assert "the longer side of 128 × 96, 128" in note
    wide["extensions"].append("edm")
    assert "an app of its own draws" in list(notes(wide))[1]


@pytest.mark.parametrize(("rule", "break_it", "message"), DOCUMENT_CASES, ids=range(len(DOCUMENT_CASES)))
def test_every_lie_is_noticed(tmp_path: Path, rule: str, break_it: Break, message: str) -> None:
    bundle = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    document = json.loads((bundle / "bundle.json").read_text())
    break_it(document, bundle)
    (bundle / "bundle.json").write_text(json.dumps(document))
    violations = [str(violation) for violation in lint_bundle(bundle) if violation.rule == rule]
    assert any(re.search(message, violation) for violation in violations), lint_bundle(bundle)
