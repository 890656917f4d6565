"""The bundle stage: names, tokenizer, facts, and the same bytes every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sdbuild.builtin import tiny
from sdbuild.bundle.document import bundle_digest, read_document
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.linter import lint_bundle
from sdbuild.stages import account, bundle
from tests.bundle.bundles import ADAPTED, SD, SD_CHUNKED, SDXL, Model, write_compiled, write_package

PARTS = {
    "text_encoder": ["TextEncoder"],
    "unet": ["Unet"],
    "controlled_unet": ["ControlledUnet"],
    "controlnet-TinyControlnet": ["controlnet/TinyControlnet"],
    "vae_decoder": ["VAEDecoder"],
    "vae_encoder": ["VAEEncoder"],
    "safety_checker": ["SafetyChecker"],
}
CHUNKED = PARTS | {
    "unet": ["UnetChunk1", "UnetChunk2"],
    "controlled_unet": ["ControlledUnetChunk1", "ControlledUnetChunk2"],
}
SOURCES = {"index": {"source": "tiny-sd", "counts": {"used": 20}, "not_used": []}}
XL_PARTS = {
    "text_encoder": ["TextEncoder"],
    "text_encoder_2": ["TextEncoder2"],
    "unet": ["Unet"],
    "vae_decoder": ["VAEDecoder"],
}


def artifacts(
    root: Path, parts: dict[str, list[str]], models: dict[str, Model], *, compiled: bool = False
) -> dict[str, Path]:
    """Each part's artifact as the stages before leave it; the stages know nothing of a ControlNet's name."""
    inputs = {}
    for part, names in parts.items():
        inputs[part] = root / part
        (root / part).mkdir(parents=True)
        for name in names:
            base = {"controlnet": "ControlNet", "t2i_adapter": "T2IAdapter"}.get(name.partition("/")[0], name)
            write = write_compiled if compiled else write_package
            write(root / part / f"{base}{'.mlmodelc' if compiled else '.mlpackage'}", models[name])
        (root / part / "modules.json").write_text("{}")
    return inputs


def parameters(parts: dict[str, list[str]], **changes: Any) -> dict[str, Any]:
    controlnets = [part.removeprefix("controlnet-") for part in parts if part.startswith("controlnet-")]
    return {
        "recipe": "tiny-sd",
        "model": {"version": "builtin:tiny-sd", "revision": None, "source": "builtin"},
        "components": ["text_encoder", "unet", "vae_decoder"],
        "attention_implementation": "SPLIT_EINSUM",
        "latent": {"height": 16, "width": 12},
        "text_sequence_length": 77,
        "unet": {"batch": 2, "chunks": 2 if len(parts["unet"]) == 2 else 1},
        "quantization": {part: 6 if part == "unet" else None for part in parts},
        "compression": {part: {"method": "palette", "group_size": None} for part in parts},
        "precision": dict.fromkeys(parts, "float16"),
        "controlnets": [
            {"name": name, "version": "builtin:tiny-controlnet", "revision": None, "source": "builtin"}
            for name in controlnets
        ],
        "refiner": None,
        "vae_checkpoint": None,
        "loras": [],
        "deployment_target": "iOS16",
        "target": {
            "name": "iphone-15-pro",
            "device": "iPhone 15 Pro",
            "chip": "A17 Pro",
            "os": "iOS",
            "os_version": "17.0",
            "os_generation": 17,
            "app_memory": 5_905_580_032,
            "compute_unit": "CPU_AND_NE",
        },
        "reduce_memory": False,
        "allowed_rules": [],
        "compiled": False,
        "verified": False,
    } | changes


def build(
    root: Path, out: Path, parts: dict[str, list[str]], models: dict[str, Model], checkpoint: str, **changes: Any
) -> Path:
    compiled = changes.get("compiled", False)
    inputs = artifacts(root, parts, models, compiled=compiled)
    tiny.generate(checkpoint, root / "checkpoint", ["", "tokenizer", "scheduler", "unet", "vae", "text_encoder_2"])
    inputs |= {
        "index": root / "checkpoint",
        "tokenizer": root / "checkpoint" / "tokenizer",
        "account": root / "account",
    }
    (root / "account").mkdir()
    (root / "account" / account.FILE).write_text(json.dumps(SOURCES))
    if changes.get("verified"):
        inputs["verify-convert-unet"] = root / "verify"
        (root / "verify").mkdir()
        (root / "verify" / "verification.json").write_text('{"outputs": ["noise_pred"]}')
    out.mkdir()
    bundle.run(inputs, parameters(parts, **changes), out, lambda fraction, message: None)
    return out


def test_a_bundle_with_t2i_adapters_says_what_its_app_feeds(tmp_path: Path) -> None:
    names = ("TinyAdapter", "Grey")
    added = {"adapted_unet": ["AdaptedUnet"], **{f"t2i_adapter-{name}": [f"t2i_adapter/{name}"] for name in names}}
    parts = PARTS | added
    adapters = [{"name": name, "version": "builtin:a", "revision": None, "source": "builtin"} for name in names]
    out = build(tmp_path / "in", tmp_path / "out", parts, SD | ADAPTED, "tiny-sd", t2i_adapters=adapters)
    document = json.loads((out / "bundle.json").read_text())
    assert document["extensions"] == ["t2i-adapter"]
    assert document["t2i_adapters"] == adapters
    assert listing(out / "Resources" / "t2i_adapter") == ["Grey.mlpackage", "TinyAdapter.mlpackage"]
    assert document["models"]["t2i_adapter/Grey"]["attention_implementation"] is None
    assert document["models"]["AdaptedUnet"]["attention_implementation"] == "SPLIT_EINSUM"
    plain = build(tmp_path / "plain", tmp_path / "plain-out", PARTS, SD, "tiny-sd")
    assert "t2i_adapters" not in json.loads((plain / "bundle.json").read_text())


def listing(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.iterdir())


def test_models_get_the_names_that_the_swift_package_asks_for(tmp_path: Path) -> None:
    out = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    assert listing(out) == ["Resources", "bundle.json"]
    assert listing(out / "Resources") == sorted(
        [f"{name}.mlpackage" for name in SD if "/" not in name] + ["controlnet", "merges.txt", "vocab.json"]
    )
    assert listing(out / "Resources" / "controlnet") == ["TinyControlnet.mlpackage"]
    assert lint_bundle(out) == []


@pytest.mark.parametrize(("parts", "models"), [(CHUNKED, SD_CHUNKED), (PARTS, SD)], ids=["chunked", "whole"])
@pytest.mark.parametrize("compiled", [False, True], ids=["packages", "compiled"])
def test_every_form_passes_the_linter(
    tmp_path: Path, parts: dict[str, list[str]], models: dict[str, Model], compiled: bool
) -> None:
    out = build(tmp_path / "in", tmp_path / "out", parts, models, "tiny-sd", compiled=compiled)
    assert lint_bundle(out) == []
    assert read_document(out)["compiled"] is compiled


def test_the_document_says_what_the_app_cannot_see(tmp_path: Path) -> None:
    out = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    document = read_document(out)
    assert document["family"] == "sd1"
    assert document["prediction_type"] == "epsilon"
    assert document["vae"] == {"scaling_factor": 0.18215, "shift_factor": 0.0, "latent_channels": 4}
    assert document["scheduler"]["_class_name"] == "PNDMScheduler"
    assert document["image"] == {"height": 128, "width": 96}
    assert document["minimum_os"] == {"iOS": "16.0", "macOS": "13.0"}
    assert document["license"] == "mit"
    assert document["verification"] == "not verified"
    assert document["tokenizer"]["padding_token"] == "<|endoftext|>"
    unet = document["models"]["Unet"]
    assert (unet["part"], unet["bits"], unet["attention_implementation"]) == ("unet", 6, "SPLIT_EINSUM")
    assert (unet["compression"], unet["group_size"]) == ("palette", None)
    assert unet["inputs"][0] == {"name": "sample", "shape": [2, 4, 16, 12], "dtype": "float16"}
    assert document["models"]["VAEDecoder"]["attention_implementation"] is None


def test_v_prediction_is_said(tmp_path: Path) -> None:
    document = read_document(build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd2"))
    assert (document["family"], document["prediction_type"]) == ("sd2", "v_prediction")
    assert document["tokenizer"]["padding_token"] == "!"


def test_sdxl(tmp_path: Path) -> None:
    document = read_document(build(tmp_path / "in", tmp_path / "out", XL_PARTS, SDXL, "tiny-sdxl"))
    assert document["family"] == "sdxl"
    assert document["vae"]["scaling_factor"] == 0.13025
    assert document["force_zeros_for_empty_prompt"] is True


def test_verification_is_carried_over(tmp_path: Path) -> None:
    out = build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd", verified=True)
    assert read_document(out)["verification"] == {"convert-unet": {"outputs": ["noise_pred"]}}


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (build(tmp_path / f"in{i}", tmp_path / f"out{i}", PARTS, SD, "tiny-sd") for i in (1, 2))
    assert bundle_digest(first) == bundle_digest(second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    assert str(tmp_path) not in (first / "bundle.json").read_text()


def test_inputs_may_be_links(tmp_path: Path) -> None:
    build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")
    for path in [path for path in (tmp_path / "in").rglob("*") if path.is_file()]:
        real = (
            tmp_path / "blobs" / str(len(list((tmp_path / "blobs").glob("*"))) if (tmp_path / "blobs").exists() else 0)
        )
        real.parent.mkdir(exist_ok=True)
        shutil.move(path, real)
        path.symlink_to(real)
    inputs = {part: tmp_path / "in" / part for part in PARTS}
    inputs |= {"index": tmp_path / "in" / "checkpoint", "tokenizer": tmp_path / "in" / "checkpoint" / "tokenizer"}
    inputs["account"] = tmp_path / "in" / "account"
    (tmp_path / "again").mkdir()
    bundle.run(inputs, parameters(PARTS), tmp_path / "again", lambda fraction, message: None)
    assert bundle_digest(tmp_path / "again") == bundle_digest(tmp_path / "out")


def test_a_bundle_that_breaks_the_contract_fails_the_build(tmp_path: Path) -> None:
    models = SD | {"Unet": SD["Unet"].with_input("timestep_cond", (2, 256))}
    with pytest.raises(BundleError, match=r"timestep_cond: never fed.*\[input-name\]"):
        build(tmp_path / "in", tmp_path / "out", PARTS, models, "tiny-sd")


def test_an_artifact_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="unet: its artifact holds 0 models"):
        build(tmp_path / "in", tmp_path / "out", PARTS | {"unet": []}, SD, "tiny-sd")


def test_the_document_is_canonical(tmp_path: Path) -> None:
    text = (build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd") / "bundle.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
