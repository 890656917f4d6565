"""A checkpoint's folder on this machine: what of it may be read.

A folder that somebody hands over may hold links to anything, pipes and devices. Links are followed as far as the folder
itself, or the Hub's cache, whose snapshots are links; every file that could be read is a regular one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sdbuild.recipe.diagnostics import Diagnostic, RecipeError

_READ = re.compile(r".*\.(json|safetensors|bin|ckpt|pt|txt|model)|README\.md|LICENSE.*", re.DOTALL)
_MOST_FILES = 20_000


def list_checkpoint(folder: Path) -> tuple[str, ...]:
    """The files of a checkpoint, two levels deep: one in diffusers' layout has no deeper ones.

    Raises:
        RecipeError: a file that could be read is no regular one, or a link out of the checkpoint.
    """
    root = folder.resolve()
    names = []
    for name, path in _walk(folder):
        names.append(name)
        if _READ.fullmatch(path.name):
            _check(path, name, root)
        if len(names) > _MOST_FILES:
            raise _refused(folder, f"holds more than {_MOST_FILES} files", "name the checkpoint's own folder")
    return tuple(sorted(names))


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from ((f"{path.name}/{child.name}", child) for child in path.iterdir() if not child.is_dir())
        else:
            yield path.name, path


def _check(path: Path, name: str, root: Path) -> None:
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise _refused(path, f"is a link that leads nowhere ({error})", "remove it, or copy the file there") from error
    if not stat.S_ISREG(kind):
        raise _refused(path, "is not a regular file", "remove it from the checkpoint")
    if not (real.is_relative_to(root) or _in_hub_cache(real, root)):
        help_ = f"copy the file there, if {name} belongs to the checkpoint; links may lead to files within it"
        raise _refused(path, f"is a link out of the checkpoint, to {real}", help_)


def _in_hub_cache(real: Path, root: Path) -> bool:
    """Whether a snapshot of the Hub's cache leads to a blob of the same repository: `snapshots/X/…` to `blobs/Y`."""
    repository = root.parent.parent
    return root.parent.name == "snapshots" and real.parent == repository / "blobs"


def _refused(path: Path, what: str, help_: str) -> RecipeError:
    return RecipeError([Diagnostic("checkpoint", f"{os.fspath(path)}: {what}", None, help_)])
