"""Garbage collection and accounting: what the store holds, and what nobody needs any more."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdbuild.store.files import remove
from sdbuild.store.layout import Layout
from sdbuild.store.records import Records
from sdbuild.store.retention import Dropped, Retention, choose, held_results
from sdbuild.store.tree import Entry, Tree

Progress = Callable[[float, str], None]

_LOG_SECONDS = 30 * 24 * 3600.0
_RECORDS = ("trees", "actions", "references", "slots", "history", "ignored")


@dataclass(frozen=True)
class Garbage:
    """What a collection removes, in the order in which it goes: nothing ever names what is gone.

    Attributes:
        dropped: the results that go though their output is there, the least recently used first.
        actions: records of actions, trees: manifests, blobs: contents; rest: notes on files outside, old logs, damage.
        remaining: bytes that the store holds afterwards.
    """

    dropped: tuple[Dropped, ...]
    actions: tuple[Path, ...]
    trees: tuple[Path, ...]
    blobs: tuple[Path, ...]
    rest: tuple[Path, ...]
    remaining: int

    @property
    def bytes(self) -> int:
        """The size of all that goes."""
        return sum(_size(path) for path in (*self.actions, *self.trees, *self.blobs, *self.rest))


@dataclass(frozen=True)
class Collected:
    """What a collection removed.

    Attributes:
        bytes: the size of what is gone.
        linked_bytes: the part of it that takes its space on until the bundles that are linked to it go too.
    """

    blobs: int
    trees: int
    actions: int
    bytes: int
    linked_bytes: int


@dataclass(frozen=True)
class Sizes:
    """What a store holds: numbers of things, and bytes where they weigh.

    Attributes:
        referenced: contents that lie in files outside the store.
        scratch_bytes: unfinished work of running (or killed) actions.
        corrupt_bytes: blobs that were found to be damaged and moved aside.
        record_bytes: everything that is written about artifacts and actions.
    """

    blobs: int
    blob_bytes: int
    trees: int
    actions: int
    referenced: int
    log_bytes: int
    scratch_bytes: int
    corrupt_bytes: int
    record_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.blob_bytes + self.log_bytes + self.scratch_bytes + self.corrupt_bytes + self.record_bytes


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
        record_bytes=sum(_bytes(layout.root / name) for name in _RECORDS) + _size(layout.stats),
    )


def find_garbage(
    layout: Layout,
    records: Records,
    load_tree: Callable[[str], Tree | None],
    retention: Retention,
    grace_seconds: float,
) -> Garbage:
    """Look for what no kept result needs; nothing is changed.

    Whatever is younger than the grace stays, for it may belong to an action that is just being recorded. Damaged blobs
    and logs of more than thirty days go too.

    Args:
        layout: the store.
        records: the store's records.
        load_tree: reads a manifest.
        retention: which results stay.
        grace_seconds: how young is young.
    """
    now = time.time()
    oldest_kept = now - grace_seconds
    contents = _Contents(layout, load_tree)
    sizes = measure(layout)
    other_bytes = sizes.bytes - sizes.blob_bytes - sizes.corrupt_bytes
    results = held_results(layout, records)
    dropped = choose(results, contents.files, other_bytes, retention, now, oldest_kept)
    gone = {drop.result.key for drop in dropped}
    kept = {held.key: held.tree for held in results if held.key not in gone}

    young = {path.stem for path, status in _files(layout.root / "trees") if status.st_ctime >= oldest_kept}
    read_in_place = {digest for key in kept for digest in records.inputs(key) if contents.is_elsewhere(digest)}
    trees = {*kept.values(), *young, *read_in_place}
    needed = {entry.sha256 for digest in trees for entry in contents.entries(digest)}
    keys = {*kept, *records.earlier_runs()}  # earlier runs tell what to expect, even without their output

    def old(name: str) -> Iterator[Path]:
        return _old(layout.root / name, oldest_kept)

    notes = (path for path in old("references") if path.parent.name not in needed)
    logs = _old(layout.logs, now - _LOG_SECONDS)
    garbage = Garbage(
        dropped=tuple(dropped),
        actions=tuple(path for path in old("actions") if path.name.split(".")[0] not in keys),
        trees=tuple(path for path in old("trees") if path.stem not in trees),
        blobs=tuple(path for path in old("blobs") if path.name not in needed),
        rest=(*notes, *logs, *(path for path, _ in _files(layout.corrupt))),
        remaining=0,
    )
    return replace(garbage, remaining=sizes.bytes - garbage.bytes)


def remove_garbage(garbage: Garbage, progress: Progress) -> Collected:
    """Remove what was found, as far as it is still there.

    Args:
        garbage: what to remove.
        progress: called with the fraction that is done and what goes.
    """
    paths = [*garbage.actions, *garbage.trees, *garbage.blobs, *garbage.rest]
    freed = linked = 0
    for number, path in enumerate(paths):
        progress(number / len(paths), f"removing {number + 1} of {len(paths)} files")
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            freed += status.st_size
            linked += status.st_size if status.st_nlink > 1 else 0
            remove(path)
    results = sum(1 for path in garbage.actions if path.name.endswith(".result.json"))
    return Collected(len(garbage.blobs), len(garbage.trees), results, freed, linked)


class _Contents:
    """Which of the store's own files a tree consists of."""

    def __init__(self, layout: Layout, load_tree: Callable[[str], Tree | None]) -> None:
        self._sizes = {path.name: status.st_size for path, status in _files(layout.root / "blobs")}
        self._load = functools.cache(load_tree)

    def entries(self, digest: str) -> tuple[Entry, ...]:
        """The files of a tree; none where its manifest is lost."""
        tree = self._load(digest)
        return tree.entries if tree is not None else ()

    def files(self, digest: str) -> Mapping[str, int]:
        """Blob → bytes."""
        return {
            entry.sha256: self._sizes[entry.sha256] for entry in self.entries(digest) if entry.sha256 in self._sizes
        }

    def is_elsewhere(self, digest: str) -> bool:
        """Whether a tree is of files outside the store: it weighs nothing, and reading them again takes minutes."""
        return bool(self.entries(digest)) and not self.files(digest)


def _old(folder: Path, oldest_kept: float) -> Iterator[Path]:
    for path, status in _files(folder):
        if status.st_ctime < oldest_kept:
            yield path


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _bytes(folder: Path) -> int:
    return sum(status.st_size for _, status in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            with contextlib.suppress(FileNotFoundError):
                yield path, path.lstat()
