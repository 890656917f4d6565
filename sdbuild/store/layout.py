"""Where things lie under the store's root, and the scratch space that everything is written in first."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from sdbuild.store.errors import StoreError
from sdbuild.store.files import remove, write_atomic
from sdbuild.store.owner import is_abandoned, unique_name

_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Intermediate results of sdbuild; safe to delete.\n"


@dataclass(frozen=True)
class Layout:
    """The paths of one store; nothing is created before `prepare`."""

    root: Path
    read_only: bool = False

    @cached_property
    def scratch(self) -> Path:
        """Unfinished work; every name in it tells its maker."""
        return self.root / "scratch"

    @cached_property
    def logs(self) -> Path:
        """What actions print."""
        return self.root / "logs"

    @cached_property
    def locks(self) -> Path:
        """Files that are locked, or that tell what is reserved, while an action runs."""
        return self.root / "locks"

    @cached_property
    def corrupt(self) -> Path:
        """Blobs whose content is no longer what their name says."""
        return self.root / "corrupt"

    @cached_property
    def stats(self) -> Path:
        """The stat cache's log."""
        return self.root / "stats"

    def blob(self, sha256: str) -> Path:
        """The file that holds a blob's bytes."""
        return self.root / "blobs" / sha256[:2] / sha256

    def references(self, sha256: str) -> Path:
        """The folder of notes on external files that had this content."""
        return self.root / "references" / sha256[:2] / sha256

    def tree(self, digest: str) -> Path:
        """A tree's manifest."""
        return self.root / "trees" / digest[:2] / f"{digest}.json"

    def result(self, key: str) -> Path:
        """An action's result."""
        return self.root / "actions" / key[:2] / f"{key}.result.json"

    def document(self, key: str) -> Path:
        """The key document of an action."""
        return self.root / "actions" / key[:2] / f"{key}.key.json"

    def slot(self, name: str) -> Path:
        """The note of the action that last stood for a task."""
        return self.root / "slots" / f"{_file_name(name)}.json"

    def history(self, name: str) -> Path:
        """The keys of the latest runs of one stage and component."""
        return self.root / "history" / _file_name(name)

    def prepare(self) -> None:
        """Create the root before the first write, and remove what dead processes left in the scratch space.

        Raises:
            StoreError: the store was opened for reading only, or its folder cannot be made.
        """
        if self.read_only:
            raise StoreError(f"{self.root}: the cache was opened for reading only, and something tried to write to it")
        if self.scratch.is_dir():
            return
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.root}: the cache folder cannot be made ({error.strerror}); "
                "set SDBUILD_CACHE to a folder that you can write to"
            ) from error
        self.write(self.root / "CACHEDIR.TAG", _CACHE_TAG)

    def temporary(self) -> Path:
        """A path in the scratch space that nobody else uses; nothing is there yet."""
        return self.scratch / unique_name()

    def write(self, path: Path, data: bytes) -> None:
        """Write a small file so that it is there whole or not at all."""
        write_atomic(path, data, self.temporary())

    def sweep(self) -> None:
        """Remove the scratch files and folders whose makers are dead."""
        with contextlib.suppress(FileNotFoundError):
            for path in list(self.scratch.iterdir()):
                if is_abandoned(path.name, path):
                    remove(path)


def _file_name(name: str) -> str:
    quoted = quote(name, safe=" @+=,")
    if len(quoted) > 200:
        raise StoreError(f"{name!r} is too long for the name of a task; keep recipe and component names short")
    return quoted
