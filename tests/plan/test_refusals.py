"""What the operating system refuses in the middle of a build is said in words, and the next build goes on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_OPEN = os.open
REFUSALS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]


def refusing(number: int, real: Callable[..., Any], after: int) -> Callable[..., Any]:
    """A system call that is refused from some call on."""
    calls = [0]

    def call(*args: Any, **options: Any) -> Any:
        if real is _OPEN and not args[1] & (os.O_WRONLY | os.O_RDWR):
            return real(*args, **options)  # what is read is another matter
        calls[0] += 1
        if calls[0] > after:
            raise OSError(number, os.strerror(number), str(args[0]) if args else None)
        return real(*args, **options)

    return call


CALLS: dict[str, tuple[object, str]] = {
    "fsync": (os, "fsync"),
    "rename": (Path, "replace"),
    "mkdir": (Path, "mkdir"),
    "link": (os, "link"),
    "chmod": (Path, "chmod"),
    "open": (os, "open"),
}


@pytest.mark.parametrize("number", REFUSALS, ids=[errno.errorcode[number] for number in REFUSALS])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", [0, 7, 40])
def test_a_refusal_is_told_and_healed(
    workspace: Any, monkeypatch: pytest.MonkeyPatch, name: str, number: int, after: int
) -> None:
    where, attribute = CALLS[name]
    with monkeypatch.context() as patch:
        patch.setattr(where, attribute, refusing(number, getattr(where, attribute), after))
        ran = workspace("recipe=phone")
    assert "Traceback" not in ran.err + ran.out
    assert "not foreseen" not in ran.err
    assert ran.status in (0, 1), "a disk without hard links does without"
    if ran.status:
        words = {errno.ENOSPC: "disk is full", errno.EDQUOT: "quota"}.get(number, os.strerror(number))
        assert words in ran.err or "cannot be" in ran.err
    assert workspace("recipe=phone").status == 0
    assert "0 to run" in workspace("plan", "recipe=phone").out


def test_a_note_beside_a_bundle_that_a_kill_left_half_is_written_anew(workspace: Any) -> None:
    workspace("recipe=phone")
    note = workspace.root / "build/phone/iphone-15-pro.build-host.json"
    whole = note.read_text()
    for half in (whole[: len(whole) // 2], "", "[]", None):
        note.unlink()
        if half is not None:
            note.write_text(half)
        assert workspace("recipe=phone").actions == []
        assert '"bundle": "sha256:' in note.read_text()
        assert note.read_text().endswith("}\n")
