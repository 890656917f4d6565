"""What the Hub's cache on this machine holds, and whether it still is what its name says; nothing is written.

A snapshot's files are links to blobs that are named by their hash: the sha256 of files in large-file storage, git's
blob hash of the others (https://huggingface.co/docs/huggingface_hub/guides/manage-cache). That is what a file is
compared with when no Hub can be asked.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Protocol

from sdbuild.paths import is_relative

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_REFERENCE = 100  # bytes; a commit has 40
CachedFile = tuple[str, int, str | None, str | None]
"""Name, size in bytes, sha256 and git's hash, as far as the blob's name tells them."""


class Declared(Protocol):
    """What somebody said of a file's content."""

    @property
    def size(self) -> int | None:
        """Bytes."""

    @property
    def sha256(self) -> str | None:
        """The content's hash."""

    @property
    def git_sha1(self) -> str | None:
        """Git's blob hash."""


def snapshot_files(folder: Path, revision: str) -> tuple[str, list[CachedFile]] | None:
    """The commit that a revision meant when the cache last heard of it, and the files that are here.

    Args:
        folder: the repository's folder in the cache, ``models--owner--name``.
        revision: a branch, a tag or a commit.
    """
    commit = revision if COMMIT.fullmatch(revision) else _reference(folder, revision)
    if commit is None:
        return None
    snapshot = folder / "snapshots" / commit
    files = [
        (name, path.stat().st_size, *_hashes(path))
        for path in sorted(snapshot.rglob("*"))
        if path.is_file() and is_relative(name := path.relative_to(snapshot).as_posix())
    ]
    return (commit, files) if files else None


def is_intact(path: Path, file: Declared) -> bool:
    """Whether a file's content has the declared hash; True when none was declared."""
    with path.open("rb") as stream:
        if file.sha256 is not None:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
        if file.git_sha1 is not None and file.size is not None:
            digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
            digest.update(stream.read())
            return digest.hexdigest() == file.git_sha1
    return True


def _reference(folder: Path, revision: str) -> str | None:
    path = folder / "refs" / revision
    if not is_relative(revision) or not path.is_file() or path.stat().st_size > _LONGEST_REFERENCE:
        return None
    commit = path.read_text(errors="replace").strip()
    return commit if COMMIT.fullmatch(commit) else None


def _hashes(path: Path) -> tuple[str | None, str | None]:
    """sha256 and git's hash by the name of the blob; neither where the file system has no links."""
    blob = path.resolve()
    if blob.parent.name != "blobs":
        return None, None
    if _SHA256.fullmatch(blob.name):
        return blob.name, None
    return None, blob.name if COMMIT.fullmatch(blob.name) else None
