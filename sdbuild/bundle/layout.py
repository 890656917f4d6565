"""Where things lie in a bundle.

A bundle is a directory with `Resources` (all that the client loads, under the names of `sdbuild.interface.swift.files`)
and `bundle.json` beside it.
"""

from __future__ import annotations

from pathlib import Path

from sdbuild.interface.swift.files import COMPILED, PACKAGE

RESOURCES = "Resources"
DOCUMENT = "bundle.json"
BUILD_HOST = "build-host.json"


def is_model(path: Path) -> bool:
    """Whether a directory is a package or a compiled model, by its name."""
    return path.suffix in (PACKAGE, COMPILED)


def find_models(directory: Path) -> list[Path]:
    """Every package and compiled model under a directory, sorted by path; models are not looked into."""
    found = []
    for path in sorted(directory.iterdir()):
        if is_model(path):
            found.append(path)
        elif path.is_dir() and not path.is_symlink():
            found += find_models(path)
    return found
