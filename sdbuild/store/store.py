"""The store: artifacts by digest, actions by key. Everything is written beside, synced and renamed into place."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from sdbuild.store.blobs import Blobs
from sdbuild.store.collect import Collected, Garbage, Progress, Sizes, find_garbage, measure, remove_garbage
from sdbuild.store.collection_lock import alone, in_use
from sdbuild.store.errors import StoreError
from sdbuild.store.files import remove
from sdbuild.store.layout import Layout
from sdbuild.store.outputs import Difference, Outputs
from sdbuild.store.records import ActionResult, Records
from sdbuild.store.retention import KEEP_TASKS, Held, Retention, held_results
from sdbuild.store.stats import StatCache
from sdbuild.store.tree import REGULAR, Entry, Tree, mode_of, scan


class Store:
    """A cache directory. Opening one writes nothing; a read-only one never does, even where there is no directory yet.

    Any number of processes and threads may use one store at the same time without locks, as long as nothing is removed:
    builds and collections take turns.
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self.layout = Layout(root.expanduser().absolute(), read_only)
        self._stats = StatCache(self.layout)
        self._blobs = Blobs(self.layout, self._stats)
        self._outputs = Outputs(self.layout, self._stats)
        self._records = Records(self.layout)
        self._swept = False

    @property
    def root(self) -> Path:
        """The directory that holds everything."""
        return self.layout.root

    def put_tree(self, directory: Path, *, move: bool = True) -> Tree:
        """Store a directory's files and return their tree.

        Args:
            directory: what to store; a symbolic link in it stands for the content of a regular file.
            move: whether the files themselves may become blobs; the directory is then gone afterwards.
        """
        self.prepare()
        found = [(relative, *_content(path, status)) for relative, path, status in scan(directory)]
        with _pool() as pool:
            digests = list(pool.map(lambda item: self._blobs.add(item[1], item[2], move=move and not item[3]), found))
        entries = (
            Entry(relative, mode_of(status), status.st_size, digest)
            for (relative, _, status, _), digest in zip(found, digests, strict=True)
        )
        tree = Tree.of(entries)
        self._blobs.sync_names(set(digests))
        self._write_tree(tree)
        if move:
            remove(directory)
        return tree

    def reference_tree(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Tree:
        """The tree of files that stay where they are: their sha256, status and place are noted, nothing is copied.

        Their modes do not count: a checkpoint is the same on a disk where every file is executable.

        Args:
            files: relative path in the tree → the file.
            progress: called with the fraction of bytes done and the file just read.
        """
        self.prepare()
        absolute = {relative: path.expanduser().absolute() for relative, path in files.items()}
        total = sum(_regular(path).st_size for path in absolute.values()) or 1
        entries, done = [], 0
        with _pool() as pool:
            for relative, (digest, status) in zip(
                absolute, pool.map(self._blobs.refer, absolute.values()), strict=True
            ):
                entries.append(Entry(relative, REGULAR, status.st_size, digest))
                done += status.st_size
                if progress is not None:
                    progress(done / total, f"read {relative}")
        tree = Tree.of(entries)
        self._write_tree(tree)
        return tree

    def probe_reference(self, files: Mapping[str, Path]) -> str | None:
        """The digest that `reference_tree` would give, if every file was read before and is unchanged; else None."""
        entries = []
        for relative, path in files.items():
            try:
                status = path.expanduser().stat()
            except OSError:
                return None
            digest = self._stats.known(status)
            if digest is None:
                return None
            entries.append(Entry(relative, REGULAR, status.st_size, digest))
        return Tree.of(entries).digest

    def load_tree(self, digest: str) -> Tree | None:
        """The manifest of a tree, checked against its digest; None when there is none."""
        try:
            tree = Tree.parse(self.layout.tree(digest).read_bytes())
        except (OSError, StoreError):
            return None
        return tree if tree.digest == digest else None

    def has_tree(self, digest: str) -> bool:
        """Whether every file of a tree can be had, unmodified."""
        return self.locate(digest) is not None

    def locate(self, digest: str) -> dict[str, Path] | None:
        """Where the content of each file of a tree lies now, by its relative path; None when any is lost."""
        tree = self.load_tree(digest)
        if tree is None:
            return None
        places = dict(zip((entry.path for entry in tree.entries), self._find(tree), strict=True))
        held = {path: place for path, place in places.items() if place is not None}
        return held if len(held) == len(places) else None

    def missing(self, digest: str) -> list[str]:
        """The relative paths of a tree's files that are lost; raises `StoreError` when the tree itself is."""
        tree = self._tree(digest)
        return [entry.path for entry, found in zip(tree.entries, self._find(tree), strict=True) if found is None]

    def materialise(self, digest: str, destination: Path, *, mode: Literal["output", "input"] = "output") -> None:
        """Make a directory hold exactly a tree, in one step; what stood there before is gone.

        Args:
            digest: the tree.
            destination: the directory; its parents are made.
            mode: ``output``: read-only files (reflink, hard link or copy). ``input``: symbolic links to the content.
        """
        self.prepare()
        tree = self._tree(digest)
        places = dict(zip((entry.path for entry in tree.entries), self._find(tree), strict=True))
        lost = [path for path, place in places.items() if place is None]
        if lost:
            raise StoreError(
                f"{destination}: the cache has lost {', '.join(lost[:3])} of this artifact; build it again"
            )
        held = {path: place for path, place in places.items() if place is not None}
        self._outputs.make(tree, held, destination.absolute(), mode)

    def matches(self, digest: str, destination: Path) -> bool:
        """Whether a directory holds exactly a tree: no file missing, changed or added."""
        tree = self.load_tree(digest)
        return tree is not None and next(self._outputs.compare(tree, destination), None) is None

    def differences(self, digest: str, destination: Path) -> list[Difference]:
        """How a directory differs from a tree, file by file; raises `StoreError` when the tree is lost."""
        return list(self._outputs.compare(self._tree(digest), destination))

    def discard(self, destination: Path) -> None:
        """Remove a materialised directory without making the blobs that it was linked to look changed."""
        self.prepare()
        self._outputs.discard(destination)

    def lookup(self, key: str) -> ActionResult | None:
        """The result of an action, if all of its output can still be had."""
        result = self._records.result(key)
        return result if result is not None and self.has_tree(result.tree) else None

    def recorded(self, key: str) -> ActionResult | None:
        """The result of an action, even if its output is lost."""
        return self._records.result(key)

    def record(self, key: str, document: Mapping[str, Any], result: ActionResult, *, name: str | None = None) -> None:
        """Write an action's result; `name` (as ``convert:unet``) files it as the latest run of that kind."""
        self.prepare()
        self._records.write(key, document, result)
        if name is not None:
            self._records.add_history(name, key)

    def forget(self, key: str) -> None:
        """Make an action run again the next time, as if it never had; its output stays until it is collected."""
        self.prepare()
        self._records.remove(key)

    def document(self, key: str) -> dict[str, Any] | None:
        """The key document of a recorded action."""
        return self._records.document(key)

    def slot_write(self, slot: str, key: str) -> None:
        """Note that the action with this key now stands for a task (``<recipe>/<task name>``)."""
        self.prepare()
        self._records.write_slot(slot, key, self._records.document(key))
        self._records.touch(key)

    def slot_read(self, slot: str) -> dict[str, Any] | None:
        """The key document of the action that last stood for a task; what the next one is compared with."""
        noted = self._records.slot(slot)
        return noted[1] if noted is not None else None

    def slot_key(self, slot: str) -> str | None:
        """The key of the action that last stood for a task."""
        noted = self._records.slot(slot)
        return noted[0] if noted is not None else None

    def slots(self) -> dict[str, str]:
        """Every task with the key of the action that last stood for it."""
        return self._records.slots()

    def history(self, name: str) -> Iterator[tuple[dict[str, Any], ActionResult]]:
        """Key document and result of the latest runs of a kind such as ``convert:unet``, the newest first."""
        return self._records.history(name)

    def histories(self) -> list[str]:
        """Every kind that has run."""
        return self._records.histories()

    def scratch(self) -> Path:
        """A new empty directory in the store's file system; removed by a later process if this one dies."""
        self.prepare()
        path = self.layout.temporary()
        path.mkdir()
        return path

    def results(self) -> list[Held]:
        """Every result whose output is there, the least recently used first."""
        return held_results(self.layout, self._records)

    def bytes_of(self, results: Iterable[Held]) -> int:
        """The size of the store's own files that some results consist of, each counted once."""
        return sum({sha256: size for held in results for sha256, size in self._own(held)}.values())

    def needs(self, result: Held, blobs: Collection[str]) -> bool:
        """Whether a result consists of any of some blobs, by their sha256."""
        tree = self.load_tree(result.tree)
        return tree is not None and any(entry.sha256 in blobs for entry in tree.entries)

    @contextlib.contextmanager
    def in_use(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Nothing is collected meanwhile. `waiting` is called once if a collection has to end first."""
        self.prepare()
        with in_use(self.layout, waiting):
            yield

    @contextlib.contextmanager
    def unused(self, waiting: Callable[[], None]) -> Iterator[bool]:
        """No build runs meanwhile; yields whether that is certain. `waiting` is called once if any has to end first."""
        self.prepare()
        with alone(self.layout, waiting) as certain:
            yield certain

    def garbage(self, retention: Retention = KEEP_TASKS, *, grace_seconds: float = 3600.0) -> Garbage:
        """What a collection would remove; nothing is changed."""
        return find_garbage(self.layout, self._records, self.load_tree, retention, grace_seconds)

    def gc(
        self,
        retention: Retention = KEEP_TASKS,
        *,
        grace_seconds: float = 3600.0,
        progress: Progress = lambda fraction, message: None,
    ) -> Collected:
        """Remove what no kept result needs, but for the newest (see `find_garbage`).

        Whoever has artifacts of a build in progress removed makes it fail: see `unused`.
        """
        self.prepare()
        return remove_garbage(self.garbage(retention, grace_seconds=grace_seconds), progress)

    def verify(self, progress: Progress = lambda fraction, message: None) -> list[str]:
        """Read every blob, also where its status says that nothing changed; the digests of those that were damaged.

        This finds what a failing disk did. The actions that made them run again.
        """
        self.prepare()
        return self._blobs.verify(progress)

    def sizes(self) -> Sizes:
        """How much of what the store holds."""
        return measure(self.layout)

    def prepare(self) -> None:
        """Make the root before a first write, and remove once what killed processes left unfinished."""
        self.layout.prepare()
        if not self._swept:
            self._swept = True
            self.layout.sweep()

    def _own(self, result: Held) -> Iterator[tuple[str, int]]:
        tree = self.load_tree(result.tree)
        for entry in tree.entries if tree is not None else ():
            if self.layout.blob(entry.sha256).is_file():
                yield entry.sha256, entry.size

    def _tree(self, digest: str) -> Tree:
        tree = self.load_tree(digest)
        if tree is None:
            raise StoreError(f"the cache at {self.root} has no tree {digest}; run the build again")
        return tree

    def _write_tree(self, tree: Tree) -> None:
        path = self.layout.tree(tree.digest)
        if self.load_tree(tree.digest) is None:
            self.layout.write(path, tree.manifest)
        else:
            os.utime(path)  # young again: an action that is about to be recorded names it

    def _find(self, tree: Tree) -> list[Path | None]:
        found = {entry: self._blobs.unchanged(entry.sha256, entry.size) for entry in tree.entries}
        doubtful = [entry for entry, path in found.items() if path is None]
        if doubtful:  # these are read, and looked for elsewhere
            with _pool() as pool:
                found.update(
                    zip(doubtful, pool.map(lambda e: self._blobs.find(e.sha256, e.size), doubtful), strict=True)
                )
        return [found[entry] for entry in tree.entries]


def _content(path: Path, status: os.stat_result) -> tuple[Path, os.stat_result, bool]:
    """The regular file that an artifact's file is or links to, its status, and whether it is elsewhere."""
    is_link = stat.S_ISLNK(status.st_mode)
    if is_link:
        target = path.resolve()
        return target, _regular(target), True
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: an artifact holds regular files only, and this is none; copy it")
    return path, status, False


def _regular(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: is not a regular file")
    return status


def _pool() -> ThreadPoolExecutor:
    # Hashing leaves the interpreter's lock alone; more threads than this only make a disk seek.
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))
