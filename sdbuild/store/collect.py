"""Garbage collection and accounting: what the store holds, and what nobody needs any more."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.store.files import remove
from sdbuild.store.layout import Layout
from sdbuild.store.records import Records
from sdbuild.store.tree import Tree

_LOG_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Collected:
    """What a collection removed."""

    blobs: int
    trees: int
    actions: int
    bytes: int


@dataclass(frozen=True)
class Sizes:
    """What a store holds: numbers of things, and bytes where they weigh.

    Attributes:
        referenced: contents that lie in files outside the store.
        scratch_bytes: unfinished work of running (or killed) actions.
        corrupt_bytes: blobs that were found to be damaged and moved aside.
    """

    blobs: int
    blob_bytes: int
    trees: int
    actions: int
    referenced: int
    log_bytes: int
    scratch_bytes: int
    corrupt_bytes: int


def measure(layout: Layout) -> Sizes:
    """Count a store; a missing store is empty."""
    blobs = list(_files(layout.root / "blobs"))
    return Sizes(
        blobs=len(blobs),
        blob_bytes=sum(status.st_size for _, status in blobs),
        trees=sum(1 for _ in _files(layout.root / "trees")),
        actions=sum(1 for path, _ in _files(layout.root / "actions") if path.name.endswith(".result.json")),
        referenced=sum(1 for _ in _files(layout.root / "references")),
        log_bytes=_bytes(layout.logs),
        scratch_bytes=_bytes(layout.scratch),
        corrupt_bytes=_bytes(layout.corrupt),
    )


def collect(
    layout: Layout,
    records: Records,
    load_tree: Callable[[str], Tree | None],
    keep: Collection[str],
    grace_seconds: float,
) -> Collected:
    """Remove what no kept action needs: results first, then trees, then blobs, so that nothing ever names what is gone.

    Whatever is younger than the grace is kept, for it may belong to an action that is just being recorded. A build that
    runs at the same time may lose an older artifact between finding and using it; it then says so and finds it missing
    the next time. Damaged blobs and logs of more than thirty days go too.
    """
    oldest_kept = time.time() - grace_seconds
    trees = {result.tree for key in keep if (result := records.result(key)) is not None}
    keys = set(keep) | records.history_keys()  # earlier runs tell what to expect, even without their output
    actions = [path for path in _old(layout.root / "actions", oldest_kept) if path.name.split(".")[0] not in keys]
    young = {path.stem for path, status in _files(layout.root / "trees") if status.st_ctime >= oldest_kept}
    loaded = (load_tree(digest) for digest in trees | young)
    needed = {entry.sha256 for tree in loaded if tree is not None for entry in tree.entries}
    dead_trees = [path for path in _old(layout.root / "trees", oldest_kept) if path.stem not in trees]
    dead_blobs = [path for path in _old(layout.root / "blobs", oldest_kept) if path.name not in needed]
    notes = [path for path in _old(layout.root / "references", oldest_kept) if path.parent.name not in needed]
    logs = list(_old(layout.logs, time.time() - _LOG_SECONDS))
    freed = 0
    for path in [*actions, *dead_trees, *dead_blobs, *notes, *logs, *(p for p, _ in list(_files(layout.corrupt)))]:
        with contextlib.suppress(FileNotFoundError):
            freed += path.stat().st_size
            remove(path)
    results = sum(1 for path in actions if path.name.endswith(".result.json"))
    return Collected(len(dead_blobs), len(dead_trees), results, freed)


def _old(folder: Path, oldest_kept: float) -> Iterator[Path]:
    for path, status in _files(folder):
        if status.st_ctime < oldest_kept:
            yield path


def _bytes(folder: Path) -> int:
    return sum(status.st_size for _, status in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            with contextlib.suppress(FileNotFoundError):
                yield path, path.lstat()
