"""What is written about actions: results beside full key documents, the action behind each task, earlier runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sdbuild.documents import DocumentError, read_json
from sdbuild.store.canonical import canonical_json, key_of
from sdbuild.store.errors import StoreError
from sdbuild.store.layout import Layout

_HISTORY_LENGTH = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ActionResult:
    """What an action made and what it cost.

    Attributes:
        tree: digest of the output tree.
        seconds: wall time from the worker's start until the output was stored.
        peak_rss: highest resident memory of the worker in bytes, mapped files included.
        peak_anonymous: highest memory in bytes that could not have been given back (on Linux sampled; elsewhere the
            closest that the system tells).
        log: path of the log file, relative to the store's root.
        finished: time of the end, ISO 8601, UTC.
        notes: what the stage found and is not the same on every machine, so that it is no part of the artifact.
    """

    tree: str
    seconds: float
    peak_rss: int
    peak_anonymous: int
    log: str
    finished: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """The memory in bytes that a run like this one needs: what to reserve, and what to tell people."""
        return self.peak_anonymous or self.peak_rss


_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "tree": str,
    "seconds": (int, float),
    "peak_rss": int,
    "peak_anonymous": int,
    "log": str,
    "finished": str,
    "notes": dict,
}
"""What a record says besides its key."""


class Records:
    """The JSON side of a store. A file that cannot be read as what it should be counts as not there."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write(self, key: str, document: Mapping[str, Any], result: ActionResult) -> None:
        """Write a result and its key document; the document first, so that no result is without one."""
        if key_of(document) != key:
            raise StoreError(f"the key {key} is not that of its document ({key_of(document)}); use key_of(document)")
        self._layout.write(self._layout.document(key), canonical_json(document))
        record = {"key": key, **dataclasses.asdict(result)}
        self._layout.write(self._layout.result(key), json.dumps(record, indent=1).encode())

    def result(self, key: str) -> ActionResult | None:
        """The recorded result of a key, whether or not its output is still there.

        A record says which key it is for: one that was copied to another key's place is no record of that.
        """
        values = _read(self._layout.result(key))
        if not isinstance(values, dict) or values.pop("key", None) != key:
            return None
        if any(not isinstance(values.get(name), kinds) for name, kinds in _FIELDS.items()):
            return None
        if not _DIGEST.fullmatch(values["tree"]) or values.keys() - _FIELDS.keys():
            return None
        return ActionResult(**values)

    def remove(self, key: str) -> None:
        """Forget a result; its key document stays, for what is said about earlier runs."""
        self._layout.result(key).unlink(missing_ok=True)

    def touch(self, key: str) -> None:
        """Note that a build has used a result now."""
        with contextlib.suppress(OSError):
            os.utime(self._layout.result(key))

    def inputs(self, key: str) -> list[str]:
        """The digests of the trees that an action read."""
        inputs = (self.document(key) or {}).get("inputs")
        return [digest for digest in inputs.values() if isinstance(digest, str)] if isinstance(inputs, dict) else []

    def document(self, key: str) -> dict[str, Any] | None:
        """The full key document of a key."""
        document = _read(self._layout.document(key))
        try:
            return document if isinstance(document, dict) and key_of(document) == key else None
        except StoreError:  # no key document has such a value
            return None

    def write_slot(self, slot: str, key: str, document: Mapping[str, Any] | None) -> None:
        """Note the action that now stands for a task, and the document of its key."""
        path = self._layout.slot(slot)
        note = {"slot": slot, "key": key, "document": document}
        if _read(path) != note:
            self._layout.write(path, json.dumps(note).encode())

    def slot(self, slot: str) -> tuple[str, dict[str, Any] | None] | None:
        """Key and document of the action that last stood for a task."""
        note = _read(self._layout.slot(slot))
        if not isinstance(note, dict) or not isinstance(note.get("key"), str):
            return None
        document = note.get("document")
        return note["key"], document if isinstance(document, dict) else None

    def slots(self) -> dict[str, str]:
        """Every task's name with the key of its last action."""
        folder = self._layout.slot("any").parent
        names = (unquote(path.name.removesuffix(".json")) for path in _files(folder))
        return {name: noted[0] for name in names if (noted := self.slot(name)) is not None}

    def add_history(self, name: str, key: str) -> None:
        """Note that an action of this stage and component ran; the latest few are kept."""
        keys = [known for known in self._history(name) if known != key][-(_HISTORY_LENGTH - 1) :]
        self._layout.write(self._layout.history(name), json.dumps([*keys, key]).encode())

    def history(self, name: str) -> Iterator[tuple[dict[str, Any], ActionResult]]:
        """Key document and result of the latest runs of this stage and component, the newest first."""
        for key in reversed(self._history(name)):
            document, result = self.document(key), self.result(key)
            if document is not None and result is not None:
                yield document, result

    def histories(self) -> list[str]:
        """Every stage and component that has run."""
        folder = self._layout.history("any").parent
        return [unquote(path.name) for path in _files(folder)]

    def earlier_runs(self) -> dict[str, str]:
        """Every key that is remembered as an earlier run, with the name of its stage and component."""
        return {key: name for name in self.histories() for key in self._history(name)}

    def _history(self, name: str) -> list[str]:
        keys = _read(self._layout.history(name))
        return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _read(path: Path) -> object:
    try:
        return read_json(path)
    except (OSError, DocumentError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return
