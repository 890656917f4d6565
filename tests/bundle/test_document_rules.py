"""`bundle.json` against the models: every lie is noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.bundle.linter import lint_bundle
from tests.bundle.bundles import SD, Resources
from tests.stages.test_bundle import PARTS, build

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
]


@pytest.mark.parametrize(("rule", "break_it", "message"), DOCUMENT_CASES, ids=range(len(DOCUMENT_CASES)))
def test_every_lie_is_noticed(tmp_path: Path, rule: str, break_it: Break, message: str) -> None:
    bundle = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    document = json.loads((bundle / "bundle.json").read_text())
    break_it(document, bundle)
    (bundle / "bundle.json").write_text(json.dumps(document))
    violations = [str(violation) for violation in lint_bundle(bundle) if violation.rule == rule]
    assert any(re.search(message, violation) for violation in violations), lint_bundle(bundle)
