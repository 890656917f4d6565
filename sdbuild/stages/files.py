"""Putting files into an artifact without touching them and without copying their bytes.

An artifact may name a file by a symbolic link: the store takes the link's content in, from its own blobs at no cost,
from anywhere else as a copy. A hard link would change the status of a file that is its owner's, and a later run would
take a checkpoint for changed.
"""

from __future__ import annotations

from pathlib import Path


def place(source: Path, target: Path) -> None:
    """Make `target` stand for the content of `source` (through any links), which must stay until the stage's end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve(strict=True))


def place_tree(source: Path, target: Path) -> None:
    """Place every file of a directory."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place(path, target / path.relative_to(source))
