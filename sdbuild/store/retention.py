"""Which results a collection keeps: those of today's tasks, those of late, or as many as there is room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdbuild.store.layout import Layout
from sdbuild.store.records import Records


@dataclass(frozen=True)
class Retention:
    """What a collection is asked to keep.

    With neither bound it keeps what stands for a task now. With a bound, use alone decides: a result that no task
    stands for may be wanted again tomorrow, and one that a task stands for may be of a recipe that nobody builds.

    Attributes:
        max_bytes: the least recently used results go until the store is at most that large.
        max_age_seconds: results that no build has used for so long go.
    """

    max_bytes: int | None = None
    max_age_seconds: float | None = None


KEEP_TASKS = Retention()
"""Keep what stands for a task now."""


@dataclass(frozen=True)
class Held:
    """A result whose output the store holds.

    Attributes:
        key: its action's key.
        tree: its output.
        last_used: when a build last made it or found it, in seconds since the epoch.
        tasks: the tasks that it stands for now, as ``recipe/stage:component``.
        title: what made it, for people.
    """

    key: str
    tree: str
    last_used: float
    tasks: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Dropped:
    """A result that goes, and the bytes that only it still needed when those used longer ago had gone."""

    result: Held
    bytes: int


def held_results(layout: Layout, records: Records) -> list[Held]:
    """Every result with an output, the least recently used first."""
    tasks: dict[str, list[str]] = {}
    for task, key in records.slots().items():
        tasks.setdefault(key, []).append(task)
    names = records.earlier_runs()
    found = []
    for path in layout.root.glob("actions/*/*.result.json"):
        key = path.name.split(".")[0]
        result = records.result(key)
        if result is not None and layout.tree(result.tree).is_file():
            standing = tuple(sorted(tasks.get(key, ())))
            title = ", ".join(standing) or names.get(key) or str((records.document(key) or {}).get("stage", key))
            found.append(Held(key, result.tree, path.stat().st_mtime, standing, title))
    return sorted(found, key=lambda held: (held.last_used, bool(held.tasks), held.key))


def choose(
    results: Sequence[Held],
    files_of: Callable[[str], Mapping[str, int]],
    other_bytes: int,
    retention: Retention,
    now: float,
    young: float,
) -> list[Dropped]:
    """The results that go, the least recently used first.

    Args:
        results: what there is, the least recently used first.
        files_of: the store's own files of a tree, by digest, with their sizes.
        other_bytes: what the store holds besides, which stays.
        retention: what to keep.
        now: the time, in seconds since the epoch.
        young: results that were used after this moment stay in any case.
    """
    needed: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    for held in results:
        files = files_of(held.tree)
        needed.update(files.keys())
        sizes |= files
    total = other_bytes + sum(sizes.values())
    unbounded = retention.max_bytes is None and retention.max_age_seconds is None
    dropped = []
    for held in results:
        too_old = retention.max_age_seconds is not None and held.last_used < now - retention.max_age_seconds
        too_large = retention.max_bytes is not None and total > retention.max_bytes
        if held.last_used >= young or not (too_old or too_large or (unbounded and not held.tasks)):
            continue
        files = files_of(held.tree)
        needed.subtract(files.keys())
        freed = sum(size for sha256, size in files.items() if needed[sha256] == 0)
        total -= freed
        dropped.append(Dropped(held, freed))
    return dropped
