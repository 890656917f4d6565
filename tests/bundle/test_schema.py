"""`bundle.json` by its JSON Schema, as an independent validator reads it, and the Swift file that decodes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sdbuild.bundle.document import read_document
from sdbuild.bundle.schema import SCHEMA, bundle_schema, mistakes, schema_text
from sdbuild.bundle.settings import Configuration, Initializer
from tests.bundle.bundles import ADAPTED, SD, SD_CHUNKED, SDXL
from tests.stages.test_bundle import CHUNKED, PARTS, XL_PARTS, build

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = jsonschema.Draft202012Validator(bundle_schema())


def test_the_file_is_fresh_and_a_schema() -> None:
    assert (ROOT / SCHEMA).read_text(encoding="utf-8") == schema_text(), "run `python -m sdbuild.bundle.schema`"
    jsonschema.Draft202012Validator.check_schema(bundle_schema())


@pytest.mark.parametrize(
    ("parts", "models", "checkpoint"),
    [
        (PARTS, SD, "tiny-sd"),
        (CHUNKED, SD_CHUNKED, "tiny-sd"),
        (PARTS, SD, "tiny-sd2"),
        (XL_PARTS, SDXL, "tiny-sdxl"),
    ],
)
def test_what_is_built_is_as_the_schema_says_and_described_in_full(
    tmp_path: Path, parts: Any, models: Any, checkpoint: str
) -> None:
    document = read_document(build(tmp_path / "in", tmp_path / "out", parts, models, checkpoint))
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    assert set(document) <= set(bundle_schema()["properties"])


def test_adapters_are_described_too(tmp_path: Path) -> None:
    added = {"adapted_unet": ["AdaptedUnet"], "t2i_adapter-Grey": ["t2i_adapter/Grey"]}
    adapters = [{"name": "Grey", "version": "builtin:a", "revision": None, "source": "builtin"}]
    out = build(tmp_path / "in", tmp_path / "out", PARTS | added, SD | ADAPTED, "tiny-sd", t2i_adapters=adapters)
    assert [error.message for error in VALIDATOR.iter_errors(read_document(out))] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("swift_package"),
        lambda d: d["swift_package"]["configuration"].pop("targetSize"),
        lambda d: d["swift_package"]["configuration"].update(schedulerType="eulerScheduler"),
        lambda d: d["unet"].update(batch=3),
        lambda d: d["image"].update(height="128"),
        lambda d: d["models"]["Unet"].update(digest="sha1:0"),
        lambda d: d.update(deployment_target="iOS15"),
    ],
)
def test_both_readers_refuse_the_same(tmp_path: Path, change: Any) -> None:
    document = read_document(build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd"))
    assert mistakes(document) == []
    change(document)
    assert mistakes(document)
    assert list(VALIDATOR.iter_errors(document))


def test_further_keys_are_no_mistake(tmp_path: Path) -> None:
    document = read_document(build(tmp_path / "in", tmp_path / "out", PARTS, SD, "tiny-sd")) | {"later": 1}
    assert mistakes(document) == []
    VALIDATOR.validate(document)


def test_the_swift_file_decodes_and_sets_every_setting() -> None:
    source = (ROOT / "docs/swift/BundleSettings.swift").read_text(encoding="utf-8")
    for model, name in ((Initializer, "Initializer"), (Configuration, "Configuration")):
        block = source.split(f"public struct {name}: Decodable {{")[1].split("}")[0]
        assert {*re.findall(r"let (\w+):", block)} == {field.alias for field in model.model_fields.values()}
    for field in Configuration.model_fields.values():
        assert f"made.{field.alias} = " in source
    values = json.dumps(bundle_schema()["$defs"])
    for case in re.findall(r'case "(\w+)":', source):
        assert f'"{case}"' in values
