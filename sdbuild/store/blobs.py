"""Blobs: immutable bytes by sha256, in the store or in a file of the user's that is only referred to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sdbuild.store.errors import StoreError
from sdbuild.store.files import make_folder, place, remove, replace, sync
from sdbuild.store.layout import Layout
from sdbuild.store.owner import unique_name
from sdbuild.store.stats import StatCache, hash_file, settle

_READ_ONLY_MODE = 0o444


class Blobs:
    """The content-addressed files of a store. Nothing here needs a lock: a blob's name decides its bytes."""

    def __init__(self, layout: Layout, stats: StatCache) -> None:
        self._layout = layout
        self._stats = stats

    def unchanged(self, sha256: str, size: int) -> Path | None:
        """The store's own blob, if its status says that it still is what it was; no file is read."""
        blob = self._layout.blob(sha256)
        try:
            status = blob.stat()
        except OSError:
            return None
        return blob if status.st_size == size and self._stats.known(status) == sha256 else None

    def find(self, sha256: str, size: int) -> Path | None:
        """A file that holds this content now, in the store or referred to; None when it is lost.

        The files are checked by their status and read again only when that changed. A blob of the store with another
        content is moved aside, so that it is made anew.
        """
        blob = self._layout.blob(sha256)
        found = self._holds(blob, sha256, size)
        if found:
            return blob
        if found is False and not self._layout.read_only:
            self._move_aside(blob, sha256)
        for note, path in self._notes(sha256):
            found = self._holds(path, sha256, size)
            if found:
                return path
            if found is False and not self._layout.read_only:
                note.unlink(missing_ok=True)
        return None

    def add(self, path: Path, status: os.stat_result, *, move: bool) -> str:
        """Take a file in and return its sha256.

        With `move`, the file itself becomes the blob if nobody else has a name for it; else the store gets its own
        copy, so that no later write to the file can reach the blob.
        """
        if move and status.st_nlink == 1 and status.st_dev == self._layout.scratch.stat().st_dev:
            return self._take(path)
        # A file with several names may be a blob that a stage linked into its output: that costs no copy.
        digest = self._stats.digest(path)[0] if status.st_nlink > 1 else self._stats.known(status)
        if digest is not None and self.find(digest, status.st_size) == self._layout.blob(digest):
            return digest
        temporary = self._layout.temporary()
        try:
            place(path, temporary, link=False)
            return self._take(temporary)
        finally:
            remove(temporary)

    def refer(self, path: Path) -> tuple[str, os.stat_result]:
        """Note that a file outside the store has the content that it has; returns sha256 and status."""
        sha256, status = self._stats.digest(path)
        note = self._layout.references(sha256) / hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        data = json.dumps({"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}).encode()
        with contextlib.suppress(OSError):  # no note yet, or something else in its place
            if note.read_bytes() == data:
                return sha256, status
        self._layout.write(note, data)
        return sha256, status

    def verify(self, progress: Callable[[float, str], None]) -> list[str]:
        """Read every blob of the store, whatever its status says; move damaged ones aside and return their digests."""
        sizes = {}
        for blob in sorted(self._layout.root.glob("blobs/*/*")):
            with contextlib.suppress(FileNotFoundError):
                sizes[blob] = blob.stat().st_size
        total, done, damaged = sum(sizes.values()) or 1, 0, []
        for blob, size in sizes.items():
            progress(done / total, f"reading {done / 1e9:.1f} of {total / 1e9:.1f} GB")
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                if not blob.is_file() or hash_file(blob) != blob.name:
                    self._layout.corrupt.mkdir(exist_ok=True)
                    blob.replace(self._layout.corrupt / unique_name())
                    damaged.append(blob.name)
            done += size
        return damaged

    def sync_names(self, digests: set[str]) -> None:
        """Make the blobs' names survive a loss of power (their bytes already do)."""
        for folder in {self._layout.blob(digest).parent for digest in digests}:
            if folder.is_dir():
                sync(folder)

    def _take(self, path: Path) -> str:
        path.chmod(_READ_ONLY_MODE)
        with ThreadPoolExecutor(1) as writer:
            # Writing out and hashing both go through the whole file: done at the same time.
            written = writer.submit(sync, path)
            digest, status = self._stats.digest(path)
            written.result()
        blob = self._layout.blob(digest)
        if self.find(digest, status.st_size) == blob:
            remove(path)
            return digest
        make_folder(blob.parent)
        replace(path, blob)
        renamed = blob.stat()
        # Renaming changes the change time alone; anything else means that this is no longer what was hashed.
        if all(getattr(renamed, field) == getattr(status, field) for field in ("st_ino", "st_size", "st_mtime_ns")):
            self._stats.remember(renamed, digest)
        settle(renamed)
        return digest

    def _holds(self, path: Path, sha256: str, size: int) -> bool | None:
        """True or False for the content of a file; None when there is no file to read."""
        try:
            status = path.stat()
            if status.st_size != size:
                return False
            digest, _ = self._stats.digest(path)
        except (OSError, StoreError):
            return None
        return digest == sha256

    def _move_aside(self, blob: Path, sha256: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._stats.known(blob.stat()) == sha256:
                return  # another process has just put a good one in its place
            self._layout.corrupt.mkdir(exist_ok=True)
            blob.replace(self._layout.corrupt / unique_name())

    def _notes(self, sha256: str) -> Iterator[tuple[Path, Path]]:
        folder = self._layout.references(sha256)
        try:
            notes = sorted(folder.iterdir())
        except OSError:
            return
        for note in notes:
            try:
                yield note, Path(json.loads(note.read_bytes())["path"])
            except (OSError, ValueError, KeyError, TypeError):
                continue


def copy_out(source: Path, destination: Path, *, link: bool, mode: int) -> None:
    """Give a materialised tree its read-only file, sharing the blob's space where that is possible.

    With `link` it may be a hard link, which has the blob's own mode.
    """
    if place(source, destination, link=link) != "link":
        destination.chmod(mode)
        sync(destination)
