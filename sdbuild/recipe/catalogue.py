"""Where recipes and targets are looked for, and which there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sdbuild.recipe.diagnostics import Diagnostic, Span, nearest
from sdbuild.recipe.vocabulary import NAME_LENGTH, NAME_PATTERN

Kind = Literal["recipes", "targets"]


def catalogue_directories(kind: Kind, working_directory: Path) -> list[Path]:
    """The folders to search, first match wins: the user's own `./recipes` or `./targets`, then the checked-in ones.

    The checked-in ones stand beside the package in a checkout and inside of it in an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = [working_directory / kind, package.parent / kind, package / "_catalogue" / kind]
    checked_in = [path for path in candidates[1:] if _is_ours(path, package)]
    found: list[Path] = []
    for path in [candidates[0], *checked_in]:
        if path.is_dir() and not any(path.samefile(other) for other in found):
            found.append(path)
    return found


def _is_ours(path: Path, package: Path) -> bool:
    """Whether the folder belongs to this project: a folder called `recipes` in site-packages need not."""
    return path.parent.name == "_catalogue" or (package.parent / "pyproject.toml").is_file()


def find_recipes(directories: Sequence[Path]) -> list[Path]:
    """The recipes' files by name, each name once, from the first folder that has it."""
    return _find(directories)


def find_targets(directories: Sequence[Path]) -> list[Path]:
    """The targets' files by name, each name once, from the first folder that has it."""
    return _find(directories)


def is_path(reference: str) -> bool:
    """Whether a reference is a path to a file, not a name to look up."""
    return reference.endswith((".yaml", ".yml")) or "/" in reference or "\\" in reference


def is_name(reference: str) -> bool:
    """Whether the reference is a safe name: no way out of a folder, nothing that a shell or a file system changes."""
    return re.fullmatch(NAME_PATTERN, reference) is not None and len(reference) <= NAME_LENGTH


def look_up(
    name: str, directories: Sequence[Path], mistakes: list[Diagnostic], span: Span | None, complaint: str
) -> Path | None:
    """The file of a name in the first folder that has it; else a mistake that tells the nearest name."""
    known = {path.stem: path for path in _find(directories)}
    if name in known:
        return known[name]
    help_ = nearest(name, known) or (f"there are: {', '.join(known)}" if known else "there are none")
    mistakes.append(Diagnostic("unknown-name", f"{complaint} `{name}`", span, help_))
    return None


def _find(directories: Sequence[Path]) -> list[Path]:
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.yaml")):
            # `.#k.yaml` and `._k.yaml` are what editors and a Mac's file systems leave beside a file that they need.
            if not path.name.startswith(".") and path.is_file():
                found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]
