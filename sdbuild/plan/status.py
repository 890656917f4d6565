"""Which actions are cached and which must run, told by reading the cache alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.paths import shown_path
from sdbuild.plan.action import Action, Graph, key_document
from sdbuild.plan.reasons import FilesUnread, OutputChanged, OutputMissing, Reason, ResultLost, differences
from sdbuild.store import EMPTY, ActionResult, Store, key_of


@dataclass(frozen=True)
class Status:
    """What stands for an action now.

    Attributes:
        reasons: why it must run; empty when it is cached.
        digest: its artifact, as soon as that is in the cache (a bundle may be cached and yet not be at its place).
        key: its action key; None while an input is not made yet, and for a local checkpoint's files.
        document: its key document, as far as it is known.
        result: the record of the run that the cache answers with.
    """

    reasons: tuple[Reason, ...] = ()
    digest: str | None = None
    key: str | None = None
    document: Mapping[str, Any] | None = None
    result: ActionResult | None = None

    @property
    def cached(self) -> bool:
        """Whether there is nothing to do."""
        return not self.reasons


class Statuses:
    """The statuses of a graph's actions; an action's own is asked for again until it is cached.

    Reads only: with a store that was opened for reading, nothing at all is written.
    """

    def __init__(self, graph: Graph, store: Store, outputs: Mapping[str, Path]) -> None:
        """Prepare to look at `graph`; `outputs` are the bundles' places, by task name."""
        self._graph = graph
        self._store = store
        self._outputs = outputs
        self._cached: dict[str, Status] = {}

    def __getitem__(self, action: Action) -> Status:
        status = self._cached.get(action.name)
        if status is None:
            status = self._look(action)
            if status.cached:
                self._cached[action.name] = status
        return status

    def has_read(self, action: Action, digest: str) -> None:
        """Note what a local checkpoint's files were when this build read them: that is what it builds from.

        Their status may change meanwhile without a change of their content, as when a backup links to them.
        """
        self._cached[action.name] = Status(digest=digest)

    def look_again(self, action: Action) -> Status:
        """The status as the cache is now, whatever was seen before."""
        self._cached.pop(action.name, None)
        return self[action]

    def look_at_everything_again(self) -> None:
        """Forget what was seen: the cache may be another meanwhile."""
        self._cached.clear()

    def slot(self, action: Action) -> str:
        """The name under which the cache remembers what last stood for a task."""
        return f"{self._graph.recipe}/{action.name}"

    def output(self, action: Action) -> Path | None:
        """Where a bundle is put; None for all other actions."""
        return self._outputs.get(action.name)

    def _look(self, action: Action) -> Status:
        if action.files:
            digest = self._store.probe_reference(action.files)
            # Each file may be known from another component's tree, and this tree still be unknown.
            known = digest is not None and self._store.has_tree(digest)
            return Status(digest=digest) if known else Status((FilesUnread(self._unread(action)),))
        digests: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for role, producer in action.inputs.items():
            digest = self[producer].digest
            if digest is None:
                unknown[role] = producer.name
            elif digest != EMPTY:
                # What turned out to be nothing is no input: the key is that of an action that never asked for it.
                digests[role] = digest
        document = key_document(action, digests)
        key = None
        if not unknown:
            key = key_of(document)
            result = self._store.lookup(key)
            if result is not None:
                return Status(self._misplaced(action, result.tree), result.tree, key, document, result)
        producers = {role: producer.name for role, producer in action.inputs.items()}
        previous = self._store.slot_read(self.slot(action))
        reasons = differences(previous, document, producers, unknown)
        recorded = self._store.recorded(key) if key is not None else None
        if key is not None and (not reasons or recorded is not None):
            # A loss is told before all else: with the result as it was, nothing would run.
            damaged = recorded is not None and self._store.load_tree(recorded.tree) is not None
            reasons = (ResultLost(damaged),)
        return Status(reasons, None, key, document)

    def _unread(self, action: Action) -> int:
        """How many of a local checkpoint's files are new or changed; all of them where their tree alone is unknown."""
        unread = [path for path, file in action.files.items() if self._store.probe_reference({path: file}) is None]
        return len(unread) or len(action.files)

    def _misplaced(self, action: Action, digest: str) -> tuple[Reason, ...]:
        output = self.output(action)
        if output is None or self._store.matches(digest, output):
            return ()
        shown = shown_path(output)
        if not output.exists():
            return (OutputMissing(shown),)
        differing = [difference.path for difference in self._store.differences(digest, output)]
        return (OutputChanged(shown, tuple(sorted(differing))),)
