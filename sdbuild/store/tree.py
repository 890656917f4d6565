"""Trees: what an artifact is. A sorted list of files with mode, size and sha256, named by the digest of that list."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.store.canonical import canonical_json
from sdbuild.store.errors import StoreError

REGULAR = 0o444
EXECUTABLE = 0o555
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One file of a tree.

    Attributes:
        path: relative, with forward slashes.
        mode: 0o444, or 0o555 for an executable; artifacts are read-only.
        size: bytes.
        sha256: of the content, lower-case hexadecimal.
    """

    path: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Tree:
    """An immutable set of files; make one with `Tree.of`, which sorts and checks the entries."""

    digest: str
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        """The tree of these entries.

        Raises:
            StoreError: a path that is absolute, climbs, repeats, or is both a file and a folder.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        _check_paths(ordered)
        return cls(hashlib.sha256(_manifest(ordered)).hexdigest(), ordered)

    @classmethod
    def parse(cls, manifest: bytes) -> Tree:
        """The tree of a manifest's bytes; anything but the canonical form of a tree is a `StoreError`."""
        try:
            document = json.loads(manifest)
            tree = cls.of(Entry(f["path"], f["mode"], f["size"], f["sha256"]) for f in document["files"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"not a tree manifest: {error}") from error
        if tree.manifest != manifest:
            raise StoreError("not a canonical tree manifest")
        return tree

    @property
    def manifest(self) -> bytes:
        """The canonical bytes whose sha256 is the digest."""
        return _manifest(self.entries)

    @property
    def size(self) -> int:
        """The sum of the files' sizes in bytes."""
        return sum(entry.size for entry in self.entries)


def _manifest(entries: tuple[Entry, ...]) -> bytes:
    files = [{"path": e.path, "mode": e.mode, "size": e.size, "sha256": e.sha256} for e in entries]
    return canonical_json({"format": _FORMAT, "files": files})


def _check_paths(entries: tuple[Entry, ...]) -> None:
    files = set()
    for entry in entries:
        parts = entry.path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in entry.path:
            raise StoreError(f"{entry.path!r} cannot be a path in a tree: it must be relative and stay inside")
        if entry.path in files:
            raise StoreError(f"{entry.path!r} stands twice in one tree")
        if entry.mode not in (REGULAR, EXECUTABLE):
            raise StoreError(f"{entry.path!r}: mode {entry.mode:o} is neither {REGULAR:o} nor {EXECUTABLE:o}")
        files.add(entry.path)
    for entry in entries:
        for length in range(1, entry.path.count("/") + 1):
            folder = "/".join(entry.path.split("/")[:length])
            if folder in files:
                raise StoreError(f"{folder!r} is both a file and a folder in one tree")


EMPTY = Tree.of(()).digest
"""The digest of the tree without files."""


def mode_of(status: os.stat_result) -> int:
    """The mode that a tree gives a file: only whether its owner may execute it counts."""
    return EXECUTABLE if status.st_mode & stat.S_IXUSR else REGULAR


def scan(directory: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every file under a directory as (relative path, path, its own status), links not followed, in sorted order.

    Empty folders are not part of a tree and are passed over.
    """
    pending = [("", directory)]
    while pending:
        prefix, folder = pending.pop()
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            if child.is_dir(follow_symlinks=False):
                pending.append((f"{prefix}{child.name}/", Path(child.path)))
            else:
                yield prefix + child.name, Path(child.path), child.stat(follow_symlinks=False)
