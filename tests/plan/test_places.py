"""Only what sdbuild made is replaced or removed at a bundle's place; all else stops a build or `clean`, unharmed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def place_of(workspace: Any) -> Path:
    return Path(workspace.root) / "build/phone/iphone-15-pro"


def write(path: Path, text: str = "mine") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def other_document(place: Path) -> None:
    """Somebody else's bundle.json."""
    write(place / "bundle.json", json.dumps({"format": 1, "name": "webpack"}))
    write(place / "thesis.txt")


STRANGERS: dict[str, Callable[[Path], object]] = {
    "a folder of the user's": lambda place: write(place / "thesis.txt"),
    "a file": lambda place: write(place),
    "a link to a folder": lambda place: (
        place.parent.mkdir(parents=True),
        place.symlink_to(place.parent, target_is_directory=True),
    ),
    "a link to nothing": lambda place: (place.parent.mkdir(parents=True), place.symlink_to("/nowhere")),
    "a folder deep within": lambda place: write(place / "a/b/c"),
    "Resources of somebody else": lambda place: write(place / "Resources/vocab.json"),
    "somebody else's bundle.json": other_document,
    "a broken bundle.json": lambda place: write(place / "bundle.json", "{"),
    "an unreadable bundle.json": lambda place: (place / "bundle.json").mkdir(parents=True) or write(place / "x"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_sdbuild_did_not_make_stays(workspace: Any, name: str) -> None:
    place = place_of(workspace)
    STRANGERS[name](place)
    before = snapshot(workspace.root)
    ran = workspace("recipe=phone")
    assert ran.status == 2
    assert f"{place}: " in ran.err
    assert "choose another out=" in ran.err
    assert ran.actions == [], "told before any work"
    assert workspace("clean", "recipe=phone").status in (0, 2)
    assert snapshot(workspace.root) == before


def test_a_file_of_the_users_within_a_bundle_stays(workspace: Any) -> None:
    workspace("recipe=phone")
    place = place_of(workspace)
    for name in ("thesis.txt", "Resources/Mine.mlpackage/weights", "Resources/notes.md"):
        write(place / name)
        workspace.recipe(quantization="{unet: 4}")
        before = snapshot(place)
        for words in (("recipe=phone",), ("clean", "recipe=phone")):
            ran = workspace(*words)
            assert ran.status == 2, words
            assert name in ran.err
            assert snapshot(place) == before
        (place / name).unlink()
        if (place / name).parent not in (place, place / "Resources"):
            (place / name).parent.rmdir()
    assert workspace("recipe=phone").status == 0


def test_what_sdbuild_made_is_replaced_and_removed(workspace: Any) -> None:
    """Also when it was damaged, and when the cache that made it is gone."""
    workspace("recipe=phone")
    place = place_of(workspace)
    write(place / ".DS_Store")
    for damage in ("bundle.json", "Resources/Unet.mlpackage/Manifest.json"):
        (place / damage).chmod(0o644)
        (place / damage).unlink()
        write(place / damage, "damaged")
        assert workspace("recipe=phone").status == 0
        assert (place / damage).read_text() != "damaged"
    shutil.rmtree(workspace.cache)
    workspace.recipe(quantization="{unet: 4}")
    assert workspace("recipe=phone").status == 0
    assert workspace("clean", "recipe=phone").status == 0
    assert not place.exists()


def test_a_place_that_another_out_has_filled_is_no_ones_proof(workspace: Any) -> None:
    workspace("recipe=phone")
    theirs = workspace.root / "elsewhere/phone/iphone-15-pro/bundle.json"
    write(theirs)
    assert workspace("recipe=phone", "out=elsewhere").status == 2
    assert theirs.read_text() == "mine"


def test_an_empty_folder_that_out_names_is_not_removed(workspace: Any) -> None:
    (workspace.root / "mine").mkdir()
    workspace("recipe=phone", "out=mine")
    assert workspace("clean", "recipe=phone", "out=mine").status == 0
    assert list((workspace.root / "mine").iterdir()) == []


@pytest.mark.parametrize("inside", ["", "blobs", "blobs/../trees"])
def test_no_bundle_lies_in_the_cache(workspace: Any, inside: str) -> None:
    workspace("recipe=phone", "source:index")
    ran = workspace("recipe=phone", f"out={workspace.cache / inside}")
    assert ran.status == 2
    assert "lies within the cache" in ran.err


def test_no_bundle_takes_the_place_of_a_checkpoint(workspace: Any) -> None:
    inside = place_of(workspace) / "checkpoint"
    shutil.copytree(workspace.root / "checkpoint", inside)
    ran = workspace("recipe=phone", f"source={inside}")
    assert ran.status == 2
    assert "holds a file that the build reads" in ran.err
    assert (inside / "model_index.json").is_file()


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything under a folder with its content."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def test_a_disk_that_is_too_small_is_told_before_any_work(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(workspace.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    ran = workspace("recipe=phone", "source=checkpoint")
    assert (ran.status, ran.actions) == (1, [])
    assert "what is to be built takes about" in ran.err
    assert "`sdbuild cache gc`" in ran.err
    assert workspace("recipe=phone", "source=checkpoint", "source:index").status == 0, "which is next to nothing"
    monkeypatch.undo()


def test_what_is_cached_needs_no_space(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace("recipe=phone")
    usage = shutil.disk_usage(workspace.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert workspace("recipe=phone").status == 0
