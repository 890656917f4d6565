"""The linter: a good bundle of every kind passes, and every rule is broken on purpose once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.bundle.linter import RULES, Violation, check, lint, lint_bundle
from tests.bundle.bundles import ADAPTED, CHUNK1, KINDS, UNET, Model, Ports, Resources, gives, write_resources

Break = Callable[[Resources], None]
SUFFIXES = [".mlpackage", ".mlmodelc"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_good_bundle_has_no_violation(tmp_path: Path, kind: str, suffix: str) -> None:
    resources = write_resources(tmp_path / "Resources", kind, suffix)
    assert lint(resources.path) == []


def halves(ports: Ports) -> Ports:
    return {name: (shape, "float16") for name, (shape, _) in ports.items()}


def edit(name: str, change: Callable[[Model], Model]) -> Break:
    return lambda resources: resources.change(name, change)


def text(file: str, change: Callable[[str], str]) -> Break:
    def work(resources: Resources) -> None:
        path = resources.path / file
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

    return work


def vocabulary(change: Callable[[dict[str, int]], object]) -> Break:
    def work(content: str) -> str:
        tokens = json.loads(content)
        change(tokens)
        return json.dumps(tokens)

    return text("vocab.json", work)


def remove(*names: str) -> Break:
    return lambda resources: resources.remove(*names)


def unreadable(resources: Resources) -> None:
    (resources.path / "Unet.mlpackage" / "Manifest.json").unlink()


def truncated(resources: Resources) -> None:
    specification = resources.path / "Unet.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel"
    specification.write_bytes(specification.read_bytes()[:50])


def unread_file(resources: Resources) -> None:
    (resources.path / ".DS_Store").write_bytes(b"")


def unknown_model(resources: Resources) -> None:
    resources.put("UNet2", UNET)


def file_among_controlnets(resources: Resources) -> None:
    (resources.path / "controlnet" / "notes.txt").write_text("")


def compiled_beside_package(resources: Resources) -> None:
    Resources(resources.path, ".mlmodelc").put("Unet", UNET)


def one_compiled(resources: Resources) -> None:
    resources.remove("VAEDecoder")
    Resources(resources.path, ".mlmodelc").put("VAEDecoder", resources.models["VAEDecoder"])


def whole_and_chunks(resources: Resources) -> None:
    resources.put("Unet", UNET)


def renamed(name: str, old: str, new: str) -> Break:
    def change(model: Model) -> Model:
        def named(ports: Ports) -> Ports:
            return {new if key == old else key: port for key, port in ports.items()}

        return Model(named(model.inputs), named(model.outputs))

    return edit(name, change)


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Break:
    def work(content: str) -> str:
        whole = json.loads(content)
        change(whole)
        return json.dumps(whole)

    return text("tokenizer.json", work)


def piece(*texts: str, at: int = 1000) -> Break:
    def change(whole: dict[str, Any]) -> None:
        whole["model"]["vocab"][at:at] = [[each, 0.0] for each in texts]

    return tokenizer(change)


CONTROLNET = "controlnet/TinyControlnet"
TRANSFORMER, POOLED = "MultiModalDiffusionTransformer", "pooled_text_embeddings"
HIDDEN = "encoder_hidden_states"

CASES: list[tuple[str, str, Break, str]] = [
    ("missing-model", "sd", remove("TextEncoder"), "no TextEncoder or Multilingual"),
    ("missing-model", "sd", remove("Unet", "ControlledUnet"), "no Unet or ControlledUnet"),
    ("missing-model", "sd", remove("ControlledUnet"), "ControlledUnet, which controlnet/TinyControlnet"),
    ("missing-model", "sdxl", remove("VAEDecoder"), "no VAEDecoder"),
    ("missing-model", "sd3", remove("TextEncoder"), "no TextEncoder"),
    ("unreadable-model", "sd", unreadable, "Manifest.json is missing"),
    ("unreadable-model", "sd", truncated, "cut off"),
    ("unknown-file", "sd", unread_file, ".DS_Store: nothing loads it"),
    ("unknown-file", "sd", unknown_model, "UNet2: no model of this name"),
    ("unknown-file", "sd", file_among_controlnets, "controlnet/notes.txt"),
    ("unknown-file", "sdxl", lambda r: r.put("SafetyChecker", UNET), "SafetyChecker: no model of this name .* sdxl"),
    ("unknown-file", "sdxl", lambda r: r.put(CONTROLNET, UNET), "controlnet/TinyControlnet: no model"),
    ("mixed-forms", "sd", compiled_beside_package, "Unet: there as a package and compiled"),
    ("mixed-forms", "sd", one_compiled, "only VAEDecoder compiled"),
    ("incomplete-chunks", "sd-chunked", remove("UnetChunk2"), "UnetChunk2 is missing"),
    ("incomplete-chunks", "sd-chunked", remove("ControlledUnetChunk1"), "ControlledUnetChunk1 is missing"),
    ("shadowed-model", "sd-chunked", whole_and_chunks, "Unet: never loaded"),
    ("input-name", "sd", renamed("Unet", "timestep", "t"), "no input timestep; it has sample, t,"),
    ("input-name", "sd", edit("Unet", lambda m: m.with_input("timestep_cond", (2, 256))), "timestep_cond: never fed"),
    ("input-name", "sdxl", edit("Unet", lambda m: m.without("time_ids")), "no input time_ids"),
    ("output-name", "sd", renamed("TextEncoder", "last_hidden_state", "x"), "no output last_hidden_state"),
    ("output-name", "sdxl", edit("TextEncoder2", lambda m: m.without("pooled_outputs")), "no output pooled_outputs"),
    ("output-name", "sd", renamed("SafetyChecker", "has_nsfw_concepts", "nsfw"), "no output has_nsfw_concepts"),
    ("single-input", "sd", edit("TextEncoder", lambda m: m.with_input("mask", (1, 77))), "2 inputs .input_ids, mask."),
    ("single-input", "sd", edit("VAEDecoder", lambda m: m.without("z")), "0 inputs"),
    ("single-output", "sd", edit("Unet", lambda m: m.with_output("extra", (1,))), "2 outputs .noise_pred, extra."),
    (
        "single-output",
        "sd-chunked",
        edit("UnetChunk2", lambda m: m.with_output("extra", (1,))),
        "UnetChunk2: 2 outputs",
    ),
    ("input-type", "sd", edit("VAEEncoder", lambda m: m.with_input("x", (1, 3, 128, 96), "image")), "image, must be"),
    ("output-type", "sd", edit("Unet", lambda m: Model(m.inputs, halves(m.outputs))), "noise_pred: float16"),
    ("output-type", "sd", edit(CONTROLNET, lambda m: Model(m.inputs, halves(m.outputs))), "residual_0: float16"),
    (
        "shape",
        "sd",
        edit("Unet", lambda m: m.with_input(HIDDEN, (2, 77, 64))),
        r"\[2, 77, 64\], must be \[B, D, 1, L\]",
    ),
    ("shape", "sd", edit("Unet", lambda m: m.with_input("sample", (2, 9, 16, 12))), "axis 1 is 9"),
    ("shape", "sd", edit("SafetyChecker", lambda m: m.with_input("clip_input", (1, 3, 336, 336))), "axis 2 is 336"),
    ("shape", "sd3", edit("TextEncoderT5", lambda m: m.with_output(HIDDEN, (1, 4096, 1, 64))), "64 text states"),
    ("shape-agreement", "sd", edit("Unet", lambda m: m.with_input(HIDDEN, (2, 96, 1, 77))), "text width 96, but 64"),
    (
        "shape-agreement",
        "sd",
        edit("Unet", lambda m: m.with_input(HIDDEN, (2, 64, 1, 64))),
        "number of tokens 64, but 77",
    ),
    ("shape-agreement", "sd", edit("Unet", lambda m: m.with_input("timestep", (1,))), "batch 1, but 2 in Unet, sample"),
    (
        "shape-agreement",
        "sd",
        edit("VAEDecoder", lambda m: m.with_input("z", (1, 4, 16, 16))),
        "latent width 16, but 12",
    ),
    ("shape", "sd", edit("SafetyChecker", lambda m: m.with_input("images", (1, 128, 96, 3))), "axis 1 is 128"),
    (
        "shape-agreement",
        "sdxl",
        edit("Unet", lambda m: m.with_input("text_embeds", (2, 64))),
        "pooled text state 64, but 96",
    ),
    (
        "image-size",
        "sd",
        edit("VAEDecoder", lambda m: m.with_output("image", (1, 3, 64, 96))),
        "height 64 is not 8 times 16",
    ),
    ("batch", "sdxl", edit("Unet", lambda m: m.with_input("sample", (1, 4, 16, 12))), "axis 0 is 1"),
    ("batch", "sd", edit("ControlledUnet", lambda m: m.with_input("timestep", (1,))), "axis 0 is 1"),
    ("batch", "multilingual", lambda r: r.put("Unet", three_at_once()), "batch 3, must be 1 or 2"),
    (
        "text-width",
        "sdxl",
        edit("Unet", lambda m: m.with_input(HIDDEN, (2, 128, 1, 77))),
        "128, the text encoders give 160",
    ),
    ("text-width", "sdxl", edit("UnetRefiner", lambda m: m.with_input(HIDDEN, (2, 64, 1, 77))), "64, .* give 96"),
    (
        "text-width",
        "sd3",
        edit("TextEncoder", lambda m: m.with_output("pooled_outputs", (1, 512))),
        "pooled states 512 and 1280 wide, together 1792, must be 2048",
    ),
    (
        "text-width",
        "sd3",
        edit("TextEncoder", lambda m: m.with_output("hidden_embeds", (1, 77, 1024))),
        "states 1024 and 1280 wide, together 2304, must be 2048",
    ),
    ("shape", "sd3", edit(TRANSFORMER, lambda m: m.with_input(POOLED, (2, 160, 1, 1))), "axis 1 is 160"),
    ("shape", "sd3", edit("TextEncoder", lambda m: m.with_input("input_ids", (1, 64))), "64 tokens, must be 77"),
    ("t5-tokenizer", "sd3", tokenizer(lambda t: t["pre_tokenizer"]["pretokenizers"][1].pop("add_prefix_space")), "▁"),
    ("t5-tokenizer", "sd3", tokenizer(lambda t: t.update(normalizer={"type": "Strip"})), "Strip, which ends the app"),
    ("t5-tokenizer", "sd3", tokenizer(lambda t: t.update(decoder={"type": "WordPiece"})), "decoder: WordPiece"),
    ("t5-tokenizer", "sd3", tokenizer(lambda t: t["model"].update(vocab={"a": 0})), "no list of pieces"),
    ("t5-tokenizer", "sd3", tokenizer(lambda t: t["model"].pop("unk_id")), "unk_id None"),
    (
        "t5-tokenizer",
        "sd3",
        tokenizer(lambda t: t["model"]["vocab"].extend([["é", 0.0], ["e\u0301", 0.0]])),
        "same text",
    ),
    ("t5-tokenizer", "sd3", piece(" "), "one space has id 224"),
    (
        "t5-tokenizer",
        "sd3",
        tokenizer(lambda t: t["model"]["vocab"].insert(0, ["<s>", 0.0])),
        "</s> has id 2, must be 1",
    ),
    ("t5-tokenizer", "sd3", text("tokenizer.json", lambda t: t[:-4]), "malformed"),
    ("time-ids", "sdxl", edit("Unet", lambda m: m.with_input("time_ids", (2, 5))), "5 values, must be 6"),
    ("time-ids", "sdxl", edit("UnetRefiner", lambda m: m.with_input("time_ids", (2, 6))), "6 values, must be 5"),
    ("time-ids", "refiner", edit("Unet", lambda m: m.with_input("time_ids", (2, 6))), "6 values, must be 5"),
    ("chunk-feed", "sd-chunked", edit("UnetChunk1", lambda m: m.without("skip")), "Chunk2, skip: neither"),
    ("chunk-feed", "sd-chunked", edit("UnetChunk2", lambda m: m.without("skip")), "Chunk1, skip: .* does not take"),
    ("chunk-feed", "sd-chunked", edit("UnetChunk2", lambda m: m.with_input("skip", (2, 1))), "but chunk 1 gives"),
    (
        "chunk-feed",
        "sd-chunked",
        edit("UnetChunk2", lambda m: m.with_input(HIDDEN, (2, 9, 1, 77))),
        "but chunk 1 takes",
    ),
    (
        "input-name",
        "sd-chunked",
        lambda r: r.put("UnetChunk1", CHUNK1.without("timestep")),
        "Chunk2: no input timestep",
    ),
    ("residuals", "sd", edit(CONTROLNET, lambda m: m.without("additional_residual_1")), "none, ControlledUnet takes"),
    ("residuals", "sd", renamed(CONTROLNET, "additional_residual_1", "middle"), "no residuals: middle"),
    ("residuals", "sd", edit("ControlledUnet", lambda m: m.without("additional_residual_0")), "residual_0 missing"),
    ("residuals", "sd", edit("ControlledUnet", lambda m: Model(UNET.inputs, m.outputs)), "no additional_residual_0"),
    (
        "residuals",
        "sd-chunked",
        edit(CONTROLNET, lambda m: m.with_output("additional_residual_0", (2, 32, 8, 6))),
        r"\[2, 32, 8, 6\], ControlledUnet takes \[2, 32, 16, 12\]",
    ),
    ("t5-files", "sd3", lambda r: (r.path / "tokenizer.json").unlink(), "TextEncoderT5, tokenizer_config.json"),
    ("t5-files", "sd3", remove("TextEncoderT5"), "go together"),
    ("tokenizer-missing", "sd", lambda r: (r.path / "merges.txt").unlink(), "merges.txt: not in Resources"),
    ("vocabulary", "sd", text("vocab.json", lambda _: "{"), "vocab.json"),
    ("vocabulary", "sd", text("vocab.json", lambda _: "[]"), "not a JSON object"),
    ("vocabulary", "sd", vocabulary(lambda v: v.update(a="1")), "not a non-negative integer"),
    ("vocabulary", "sd", vocabulary(lambda v: v.update(a=0)), "two tokens have the same id"),
    ("special-token", "sd", vocabulary(lambda v: v.pop("<|endoftext|>")), r"no token <\|endoftext\|>"),
    ("special-token", "sdxl", vocabulary(lambda v: v.pop("!")), "no token !"),
    ("merges-newline", "sd", text("merges.txt", lambda t: t.rstrip("\n")), "no newline"),
    ("merges", "sd", text("merges.txt", lambda t: t + "a b c\n"), "not two tokens .*: line 320"),
    ("merges", "sd", text("merges.txt", lambda t: t.replace("\n", "\r\n")), "not two tokens .* and 313 more"),
    ("merges", "sd", text("merges.txt", lambda t: t + "q q\n"), "vocabulary lacks .*: line 320"),
    ("missing-model", "sd", lambda r: shutil.rmtree(r.path), "no such directory"),
]


def three_at_once() -> Model:
    shape = (3, 4, 16, 12)
    unet = UNET.with_input("sample", shape).with_input("timestep", (3,)).with_input(HIDDEN, (3, 64, 1, 256))
    return Model(unet.inputs, gives(noise_pred=shape))


@pytest.mark.parametrize(
    ("rule", "kind", "break_it", "message"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_every_violation_is_named(tmp_path: Path, rule: str, kind: str, break_it: Break, message: str) -> None:
    resources = write_resources(tmp_path / "Resources", kind)
    break_it(resources)
    violations = [violation for violation in lint(resources.path) if violation.rule == rule]
    assert violations, f"{rule} not found"
    assert any(re.search(message, str(violation)) for violation in violations), violations


ADAPTER = "t2i_adapter/TinyAdapter"
ADAPTER_CASES: list[tuple[str, Break, str]] = [
    ("features", edit(ADAPTER, lambda m: m.without("additional_feature_1")), "none, AdaptedUnet takes"),
    ("features", edit("AdaptedUnet", lambda m: m.without("additional_feature_0")), "feature_0 missing"),
    (
        "features",
        edit(ADAPTER, lambda m: m.with_output("additional_feature_0", (1, 32, 8, 6))),
        r"\[1, 32, 8, 6\], AdaptedUnet takes \[2, 32, 16, 12\]",
    ),
    ("features", renamed(ADAPTER, "additional_feature_1", "middle"), "no features: middle"),
    (
        "batch",
        edit("AdaptedUnet", lambda m: m.with_input("additional_feature_1", (1, 64, 8, 6))),
        "sample has batch 2",
    ),
    (
        "shape",
        edit(ADAPTER, lambda m: m.with_input("adapter_cond", (1, 2, 128, 96))),
        r"must be \[1, 1 or 3, H, W\]: axis 1 is 2",
    ),
    ("missing-model", remove("AdaptedUnet"), "no AdaptedUnet, which t2i_adapter/Grey, t2i_adapter/TinyAdapter need"),
    ("unknown-file", lambda r: (r.path / "t2i_adapter/notes.txt").write_text(""), "t2i_adapter/notes.txt: nothing"),
]


def lint_adapted(tmp_path: Path, break_it: Break, extensions: list[str]) -> list[Violation]:
    """What the linter says of a bundle with T2I-Adapters, but for the rest of its document, which is not there."""
    resources = write_resources(tmp_path / "Resources", "sd")
    for name, model in ADAPTED.items():
        resources.put(name, model)
    break_it(resources)
    return [found for found in lint(resources.path, {"extensions": extensions}) if found.rule != "document"]


def test_t2i_adapters_are_known_where_the_document_announces_them(tmp_path: Path) -> None:
    assert lint_adapted(tmp_path / "announced", lambda r: None, ["t2i-adapter"]) == []
    found = lint_adapted(tmp_path / "silent", lambda r: None, [])
    assert [(violation.rule, violation.where) for violation in found] == [
        ("unknown-file", name) for name in ("AdaptedUnet", "t2i_adapter/Grey", ADAPTER)
    ]


@pytest.mark.parametrize(("rule", "break_it", "message"), ADAPTER_CASES)
def test_what_t2i_adapters_must_satisfy(tmp_path: Path, rule: str, break_it: Break, message: str) -> None:
    found = [violation for violation in lint_adapted(tmp_path, break_it, ["t2i-adapter"]) if violation.rule == rule]
    assert any(re.search(message, str(violation)) for violation in found), found


def test_compiled_models_are_held_to_the_same_rules(tmp_path: Path) -> None:
    resources = write_resources(tmp_path / "Resources", "sd", ".mlmodelc")
    resources.change("Unet", lambda model: Model(model.inputs, halves(model.outputs)))
    (resources.path / "VAEDecoder.mlmodelc" / "coremldata.bin").unlink()
    assert {violation.rule for violation in lint(resources.path)} == {"output-type", "unreadable-model"}


def test_every_rule_is_tested_and_documented() -> None:
    from tests.bundle.test_document_rules import DOCUMENT_CASES

    tested = {case[0] for case in (*CASES, *ADAPTER_CASES, *DOCUMENT_CASES)}
    assert tested == set(RULES)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "bundle.md").read_text(encoding="utf-8")
    table = "".join(f"| `{rule}` | {meaning} |\n" for rule, meaning in RULES.items())
    assert table in page, f"docs/reference/bundle.md must hold this table:\n{table}"


def test_a_violation_reads_well() -> None:
    violation = Violation("shape", "Unet, sample", "axis 1 is 9")
    assert str(violation) == "Unet, sample: axis 1 is 9 [shape]"


def test_a_missing_document_is_a_violation(tmp_path: Path) -> None:
    write_resources(tmp_path / "Resources", "sd")
    assert [violation.rule for violation in lint_bundle(tmp_path)] == ["document"]


def test_check_names_every_violation(tmp_path: Path) -> None:
    from sdbuild.bundle.errors import BundleError

    resources = write_resources(tmp_path / "Resources", "sd")
    resources.remove("VAEDecoder")
    with pytest.raises(BundleError, match=r"(?s)\[document\].*\[missing-model\]"):
        check(tmp_path)


def test_a_model_that_the_recipe_leaves_out_on_purpose_is_no_violation(tmp_path: Path) -> None:
    resources = write_resources(tmp_path / "Resources", "sd")
    resources.remove("TextEncoder")
    document = {"allowed_rules": ["component-required-by-family"]}
    assert "missing-model" in {violation.rule for violation in lint(resources.path, {"allowed_rules": []})}
    assert "missing-model" not in {violation.rule for violation in lint(resources.path, document)}
