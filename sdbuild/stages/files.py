"""Putting files into an artifact without copying their bytes where the file system allows it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def place(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` (through any links): a hard link, or a copy where there is none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def place_tree(source: Path, target: Path) -> None:
    """Place every file of a directory."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place(path, target / path.relative_to(source))
