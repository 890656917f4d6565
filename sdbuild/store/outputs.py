"""Directories that hold a tree outside the store: made whole, compared file by file, removed without a trace.

A hard link shares its inode with the blob, and making or removing one changes the inode's change time. So after each of
these, the new status is noted for the same content; that nobody wrote to the file meanwhile is seen from its
modification time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdbuild.store.blobs import copy_out
from sdbuild.store.errors import StoreError
from sdbuild.store.files import exchange, remove, sync
from sdbuild.store.layout import Layout
from sdbuild.store.owner import is_abandoned, unique_name
from sdbuild.store.stats import StatCache, settle
from sdbuild.store.tree import Entry, Tree, mode_of, scan

_SUFFIX = ".sdbuild-unfinished"


@dataclass(frozen=True)
class Difference:
    """One way in which a directory is not the tree that it should be."""

    kind: Literal["missing", "extra", "changed"]
    path: str


class Outputs:
    """Materialised trees, and what the stat cache knows of their files."""

    def __init__(self, layout: Layout, stats: StatCache) -> None:
        self._layout = layout
        self._stats = stats

    def make(self, tree: Tree, places: dict[str, Path], destination: Path, mode: Literal["output", "input"]) -> None:
        """Make `destination` hold exactly `tree`, whose files' contents lie at `places`."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep(destination)
        temporary = _sibling(destination)
        try:
            temporary.mkdir()
            for entry in tree.entries:
                path = temporary / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                if mode == "input":
                    path.symlink_to(places[entry.path])
                else:
                    self._copy_out(entry, places[entry.path], path)
            self._replace(temporary, destination)
        finally:
            self.discard(temporary)

    def compare(self, tree: Tree, destination: Path) -> Iterator[Difference]:
        """How a directory differs from a tree; what can be told without reading a file comes first."""
        wanted = {entry.path: entry for entry in tree.entries}
        same_size = []
        if destination.is_dir():
            for relative, path, status in scan(destination):
                entry = wanted.pop(relative, None)
                if entry is None:
                    yield Difference("extra", relative)
                elif not stat.S_ISREG(status.st_mode) or status.st_size != entry.size or mode_of(status) != entry.mode:
                    yield Difference("changed", relative)
                else:
                    same_size.append((entry, path))
        yield from (Difference("missing", relative) for relative in wanted)
        for entry, path in same_size:
            try:
                digest = self._stats.digest(path)[0]
            except StoreError:
                digest = ""
            if digest != entry.sha256:
                yield Difference("changed", entry.path)

    def discard(self, destination: Path) -> None:
        """Remove a directory; blobs that its files were hard links to do not look changed afterwards."""
        if destination.is_dir() and not destination.is_symlink():
            for _, path, _ in list(scan(destination)):
                status = path.lstat()  # now: removing one link changes the status of the others
                digest = self._stats.known(status) if status.st_nlink > 1 else None
                if digest is not None:
                    path.unlink(missing_ok=True)
                    self._note_link(self._layout.blob(digest), status, digest)
        remove(destination)

    def _copy_out(self, entry: Entry, source: Path, destination: Path) -> None:
        before = source.stat()
        if self._stats.known(before) != entry.sha256 and self._stats.digest(source)[0] != entry.sha256:
            raise StoreError(f"{source}: changed while it was copied out; run the build again")
        # Only the store's own files are linked: a referenced file stays its owner's, to be written at will.
        owned = source == self._layout.blob(entry.sha256)
        copy_out(source, destination, link=owned and entry.mode == 0o444, mode=entry.mode)
        status = destination.stat()
        if status.st_ino == before.st_ino:
            self._note_link(destination, before, entry.sha256)
        elif _unwritten(before, source.stat()):
            self._stats.remember(status, entry.sha256)
            settle(status)

    def _note_link(self, path: Path, before: os.stat_result, digest: str) -> None:
        """Note a file's new status after its link count changed, if `before` was known to have this content."""
        try:
            after = path.stat()
        except OSError:
            return
        if _unwritten(before, after):
            self._stats.remember(after, digest)

    def _replace(self, temporary: Path, destination: Path) -> None:
        """Put a finished directory in its place; if it cannot be swapped, it is absent in between."""
        if not os.path.lexists(destination):
            temporary.rename(destination)
        elif not exchange(temporary, destination):
            old = _sibling(destination)
            destination.rename(old)
            temporary.rename(destination)
            self.discard(old)
        sync(destination.parent)


def _unwritten(before: os.stat_result, after: os.stat_result) -> bool:
    return all(
        getattr(before, field) == getattr(after, field) for field in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def _sibling(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.{unique_name()}{_SUFFIX}")


def _sweep(destination: Path) -> None:
    """Remove what runs that were killed left beside a destination."""
    prefix = f".{destination.name}."
    for path in list(destination.parent.iterdir()):
        if path.name.startswith(prefix) and path.name.endswith(_SUFFIX):
            maker = path.name[len(prefix) : -len(_SUFFIX)]
            if is_abandoned(maker, path):
                remove(path)
