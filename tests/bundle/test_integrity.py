"""What is told of a bundle that is not what was built."""

import json
from pathlib import Path

import pytest

from sdbuild.bundle.digests import file_digest
from sdbuild.bundle.document import describe_model
from sdbuild.bundle.integrity import differences
from tests.bundle.bundles import write_resources


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    write_resources(place / "Resources", "sd")
    resources = place / "Resources"
    packages = [path.relative_to(resources).as_posix() for path in sorted(resources.rglob("*.mlpackage"))]
    models = {Path(name).stem: describe_model(resources, name) for name in packages}
    files = {name: f"sha256:{file_digest(place / 'Resources' / name)}" for name in ("vocab.json", "merges.txt")}
    (place / "bundle.json").write_text(json.dumps({"format": 1, "models": models, "tokenizer": {"files": files}}))
    return place


def weights(bundle: Path) -> Path:
    return next(path for path in sorted((bundle / "Resources/Unet.mlpackage").rglob("*")) if path.is_file())


def test_what_was_built_has_no_differences(bundle: Path) -> None:
    assert list(differences(bundle)) == []


def test_each_difference_is_told_with_its_place(bundle: Path) -> None:
    path = weights(bundle)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (bundle / "Resources/vocab.json").write_text("{}")
    (bundle / "Resources/merges.txt").unlink()
    (bundle / "Resources/thesis.txt").write_text("mine")
    (bundle / "notes.txt").write_text("mine")
    found = dict(differences(bundle))
    assert found["Resources/Unet.mlpackage"] == "its content is not the one that bundle.json names"
    assert found["Resources/vocab.json"] == "its content is not the one that bundle.json names"
    assert found["Resources/merges.txt"] == "is missing"
    assert found["Resources/thesis.txt"] == found["notes.txt"] == "was not built"
    assert len(found) == 5


def test_two_files_that_were_swapped(bundle: Path) -> None:
    first, second = (bundle / f"Resources/{name}" for name in ("vocab.json", "merges.txt"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert {where for where, _ in differences(bundle)} == {"Resources/vocab.json", "Resources/merges.txt"}


@pytest.mark.parametrize("text", ["", "[]", '{"models": {"a": {"file": "../x"}}}', '{"models": 3}'])
def test_a_document_that_says_nothing_is_told(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)
    ((where, what),) = differences(bundle)
    assert where == "bundle.json"
    assert "cannot be read" in what
