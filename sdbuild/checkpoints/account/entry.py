"""An account of a source: what became of every tensor, metadata entry, marker, setting and file that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Use(StrEnum):
    """What becomes of a thing in a source."""

    USED = "used"
    HARMLESS = "harmless"
    WARNED = "warned"
    REFUSED = "refused"


class Kind(StrEnum):
    """What kind of thing it is."""

    TENSOR = "tensor"
    METADATA = "metadata"
    MARKER = "marker"
    SETTING = "setting"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a source.

    Attributes:
        place: the file that it is in, as a path in the source; the thing's own for a file.
        kind: what it is.
        name: the tensor's, the entry's, the setting's or the file's.
        use: what becomes of it.
        reason: why it changes nothing, what is lost, or why it is refused and what to do; may be empty if it is used.
    """

    place: str
    kind: Kind
    name: str
    use: Use
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The entry for people, its place left out: ``setting `shift`: …``."""
        return f"{self.kind} `{self.name}`: {self.reason}" if self.reason else f"{self.kind} `{self.name}`"


@dataclass(frozen=True)
class Account:
    """Every entry of one source.

    Attributes:
        source: what messages call the source.
        entries: in the order in which they were read.
    """

    source: str
    entries: tuple[Entry, ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def of(self, *uses: Use) -> tuple[Entry, ...]:
        """The entries of which that became."""
        return tuple(entry for entry in self.entries if entry.use in uses)

    @property
    def refused(self) -> tuple[Entry, ...]:
        """What stops the build."""
        return self.of(Use.REFUSED)

    @property
    def warned(self) -> tuple[Entry, ...]:
        """What is left out and may change the result, and what was assumed where the source says nothing."""
        return self.of(Use.WARNED)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries there are of each use."""
        found = Counter(entry.use for entry in self.entries)
        return {use.value: found[use] for use in Use if found[use]}

    def not_used(self) -> list[dict[str, Any]]:
        """What is not used, as `bundle.json` says it: one item for each reason, with the names that it holds for."""
        grouped: dict[tuple[str, str, str, str], list[str]] = {}
        for entry in self.of(Use.HARMLESS, Use.WARNED):
            grouped.setdefault((entry.place, entry.kind, entry.use, entry.reason), []).append(entry.name)
        return [
            {"place": place, "kind": kind, "use": use, "reason": reason, "names": sorted(names)}
            for (place, kind, use, reason), names in sorted(grouped.items())
        ]


def joined(source: str, parts: Iterable[Iterable[Entry]]) -> Account:
    """One account of several parts' entries."""
    return Account(source, tuple(entry for part in parts for entry in part))
