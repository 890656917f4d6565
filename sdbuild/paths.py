"""Relative paths that come from outside: locks, listings of the Hub, shard indexes, recipes, bundles.

One rule for all of them, the same on every system: what is a safe path here is safe where the file is written, read or
unpacked, also on a Mac's or Windows' file system.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from sdbuild.errors import SdbuildError

LONGEST_NAME = 255  # bytes, the limit of ext4, APFS and NTFS
LONGEST_PATH = 1024  # bytes, PATH_MAX of macOS
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Separators and stream marks elsewhere: `C:x`, `x:y`, `\\host\x`.
_MEANS_MORE = re.compile(r'[\\:*?"<>|]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class PathError(SdbuildError, ValueError):
    """A path that must not be used: says which, and why."""

    exit_status = 2


def check_relative(path: str) -> str:
    """Return a `/`-separated relative path that stays inside of every folder that it is joined to.

    Raises:
        PathError: it is absolute, climbs, has an empty or unreadable part, or means something else on another system.
    """
    if reason := _reason(path):
        raise PathError(f"{path[:80]!r} is no path inside of a folder: {reason}")
    return path


def is_relative(path: str) -> bool:
    """Whether `check_relative` accepts a path."""
    return _reason(path) is None


RelativePath = Annotated[str, AfterValidator(check_relative)]
"""A checked path, as a field of a pydantic model."""


def inside(folder: Path, path: str) -> Path:
    """The place of a checked relative path in a folder.

    Raises:
        PathError: as `check_relative`.
    """
    return folder / PurePosixPath(check_relative(path))


def user_path(path: str) -> Path:
    """A path as a user writes it, with `~` for a home folder.

    Raises:
        PathError: `~name` names nobody, or the path holds what no path can.
    """
    if "\0" in path:
        raise PathError(f"{path[:80]!r}: no path holds a null character")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PathError(f"{path[:80]}: there is no user of that name; write the whole path") from None


def shown_path(path: Path) -> str:
    """A path from the working folder on, where it lies in it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _reason(path: str) -> str | None:
    try:
        length = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not 0 < length <= LONGEST_PATH:
        return "it is empty" if not path else f"it is longer than {LONGEST_PATH} bytes"
    if path.startswith(("/", "~")):
        return "it does not start in the folder"
    if found := _CONTROL.search(path) or _MEANS_MORE.search(path):
        return f"it holds {found[0]!r}"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"one of its parts is {part!r}"
        if len(part.encode("utf-8")) > LONGEST_NAME:
            return f"a name in it is longer than {LONGEST_NAME} bytes"
        if part.endswith((".", " ")) or part.startswith(" "):
            return "a name in it starts or ends with a space, or ends with a dot"
        if _DEVICE.fullmatch(part):
            return f"{part!r} is the name of a device"
    return None
