"""The places of bundles: only what sdbuild made there is ever replaced or removed.

A user may keep anything under `build/`, and may mistype `out=`. What stands at a place counts as made here if this
cache put a file of that name there the last time, or if a `bundle.json` of ours lists it; one file of anybody else, and
the place is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.layout import DOCUMENT, RESOURCES
from sdbuild.documents import DocumentError, read_json
from sdbuild.paths import is_relative
from sdbuild.plan.errors import PlanError

_DESKTOP = frozenset({".DS_Store"})  # what a Mac's Finder leaves wherever it looks
_SHEET = frozenset({"contact-sheet.png", "figures.json"})
_MOST_SHOWN = 3


def check_place(output: Path, made: Collection[str]) -> None:
    """Refuse a place at which something stands that sdbuild did not make.

    Args:
        output: the place of a bundle or of a contact sheet; need not exist.
        made: relative paths of the files that this cache put there the last time.

    Raises:
        PlanError: says what stands there.
    """
    if output.is_symlink():
        raise PlanError(f"{output}: is a link, and a bundle would take its place; remove it, or choose another out=")
    if not os.path.lexists(output):
        return
    if not output.is_dir():
        raise PlanError(f"{output}: is a file that sdbuild did not make; move it away, or choose another out=")
    if found := list(_strangers(output, made)):
        shown = ", ".join(found[:_MOST_SHOWN]) + (f" and {len(found) - _MOST_SHOWN} more" * (len(found) > _MOST_SHOWN))
        raise PlanError(
            f"{output}: holds what sdbuild did not make ({shown}), which is neither replaced nor removed; "
            "move it away, or choose another out="
        )


def check_apart(outputs: Mapping[str, Path], cache: Path, read: Iterable[Path]) -> None:
    """Refuse places that would hold a file that the build reads, or that mix with the cache.

    Args:
        outputs: where bundles are put, by task.
        cache: the store's root.
        read: the files of local checkpoints.

    Raises:
        PlanError: names the two.
    """
    root, files = cache.resolve(), {path.resolve() for path in read}
    for output in outputs.values():
        place = output.resolve()
        if place.is_relative_to(root) or root.is_relative_to(place):
            raise PlanError(f"{output}: lies within the cache ({root}), or around it; choose another out=")
        for file in files:
            if file.is_relative_to(place):
                raise PlanError(f"{output}: holds a file that the build reads ({file}); choose another out=")


def _strangers(output: Path, made: Collection[str]) -> Iterator[str]:
    """The files at a place that are not sdbuild's, by their relative paths."""
    listed: tuple[str, ...] | None = None
    for parent, folders, names in os.walk(output):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = (Path(parent) / name).relative_to(output).as_posix()
            if name in _DESKTOP or path in made:
                continue
            if listed is None:
                listed = tuple(_listed(output))
            if not any(path == ours or (ours.endswith("/") and path.startswith(ours)) for ours in listed):
                yield path


def _listed(output: Path) -> Iterator[str]:
    """What a `bundle.json` of ours says that it describes: files, and folders with a slash at the end."""
    try:
        document = read_json(output / DOCUMENT)
    except (OSError, DocumentError):
        if _is_sheet(output / "figures.json"):
            yield from _SHEET
        return
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        return
    models, tokenizer = document.get("models"), document.get("tokenizer")
    if not isinstance(models, dict) or not {"recipe", "target"} <= document.keys():
        return
    yield DOCUMENT
    files = tokenizer.get("files") if isinstance(tokenizer, dict) else None
    for name in files if isinstance(files, dict) else ():
        yield f"{RESOURCES}/{name}"
    for model in models.values():
        if isinstance(model, dict) and isinstance(name := model.get("file"), str) and is_relative(name):
            yield f"{RESOURCES}/{name}/"


def _is_sheet(path: Path) -> bool:
    try:
        document: Any = read_json(path)
    except (OSError, DocumentError):
        return False
    return isinstance(document, dict) and {"prompts", "columns", "seed"} <= document.keys()
