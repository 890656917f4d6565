"""What is noticed of a bundle that was changed where it stands: by `plan` from sizes and times, by `lint` from all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = "bundle.json"
MODEL = "Resources/Unet.mlpackage/Manifest.json"


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes in the file itself, not in what it is linked to."""
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o444)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, bytes(data))


def flip_and_restore_times(path: Path) -> None:
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(place: Path) -> None:
    """Two files of equal size change places."""
    first, second = place / MODEL, place / DOCUMENT
    size = max(first.stat().st_size, second.stat().st_size)
    for path in (first, second):
        rewrite(path, path.read_bytes().ljust(size))


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a bit": lambda place: flip(place / MODEL),
    "a bit, times restored": lambda place: flip_and_restore_times(place / MODEL),
    "a bit of bundle.json": lambda place: flip(place / DOCUMENT),
    "cut": lambda place: rewrite(place / MODEL, (place / MODEL).read_bytes()[:-1]),
    "gone": lambda place: (place / MODEL).unlink(),
    "a file more": lambda place: (place / "Resources/Unet.mlpackage/more").write_text("x"),
    "writable": lambda place: (rewrite(place / MODEL, (place / MODEL).read_bytes()), (place / MODEL).chmod(0o755)),
    "a link": lambda place: ((place / MODEL).unlink(), (place / MODEL).symlink_to("/etc/hostname")),
    "another file of the bundle": lambda place: rewrite(place / MODEL, (place / DOCUMENT).read_bytes()),
    "padded": swap,
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_changed_bundle_is_told_and_made_again(workspace: Any, name: str) -> None:
    workspace("recipe=phone")
    place = workspace.root / "build/phone/iphone-15-pro"
    before = {path: (place / path).read_bytes() for path in (DOCUMENT, MODEL)}
    TAMPERINGS[name](place)
    ran = workspace("plan", "recipe=phone")
    assert "1 to run" in ran.out, ran.out
    assert workspace("recipe=phone").status == 0
    assert {path: (place / path).read_bytes() for path in (DOCUMENT, MODEL)} == before
    assert "0 to run" in workspace("plan", "recipe=phone").out


def test_lint_reads_every_byte_and_knows_the_document(workspace: Any) -> None:
    """Also where names, sizes and times are as they were, as after a fault of the disk."""
    workspace("recipe=phone")
    place = workspace.root / "build/phone/iphone-15-pro"
    text = (place / DOCUMENT).read_text()
    rewrite(place / DOCUMENT, text.replace('"text": ', '"test": ', 1).encode())
    ran = workspace("lint", "recipe=phone")
    assert ran.status == 1
    assert "is not the one that was built here" in ran.out
