"""Digests that a person can check with a shell.

A directory's digest is what `find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum` prints inside it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digest(directory: Path) -> str:
    """The digest of a directory: of every file's path and content."""
    names = sorted(f"./{path.relative_to(directory).as_posix()}" for path in directory.rglob("*") if path.is_file())
    lines = "".join(f"{file_digest(directory / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def tree_size(directory: Path) -> int:
    """Bytes of all files of a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
