"""Why an action must run: typed reasons, found by comparing two key documents field by field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_FILES = 3


@dataclass(frozen=True)
class Reason:
    """Why an action must run; `str()` of it is for people."""


@dataclass(frozen=True)
class NeverBuilt(Reason):
    """The action has not run for this recipe, and nothing in the cache answers its key."""

    def __str__(self) -> str:
        return "never built"


@dataclass(frozen=True)
class ParameterChanged(Reason):
    """A parameter differs from the last run; `old` or `new` is None where the field did not or does not exist."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.old)} → {_shown(self.new)}"


@dataclass(frozen=True)
class StageVersionChanged(Reason):
    """The stage gives other results than it did."""

    stage: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"stage {self.stage}: version {self.old} → {self.new}"


@dataclass(frozen=True)
class ToolChanged(Reason):
    """Another version of a tool that shapes the output is installed."""

    tool: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{self.tool}: {_shown(self.old)} → {_shown(self.new)}"


@dataclass(frozen=True)
class InputChanged(Reason):
    """An input artifact has other content than at the last run."""

    role: str
    producer: str

    def __str__(self) -> str:
        return f"{self.role} has changed ({self.producer})"


@dataclass(frozen=True)
class InputsDropped(Reason):
    """Artifacts that the last run read are not read any more."""

    roles: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.roles)
        return f"{self.roles[0]} is no longer read" if count == 1 else f"{count} inputs are no longer read"


@dataclass(frozen=True)
class InputWillRun(Reason):
    """An input will be made first; should it come out as before, this action need not run."""

    role: str
    producer: str

    def __str__(self) -> str:
        return f"after {self.producer}"


@dataclass(frozen=True)
class FormatChanged(Reason):
    """Key documents were written another way."""

    def __str__(self) -> str:
        return "the cache's key format has changed"


@dataclass(frozen=True)
class ResultLost(Reason):
    """The action ran with the same key, but its result is not in the cache, or not as it was."""

    damaged: bool

    def __str__(self) -> str:
        return "its result in the cache is damaged" if self.damaged else "its result is no longer in the cache"


@dataclass(frozen=True)
class FilesUnread(Reason):
    """Files of a local checkpoint are new or have changed, so they must be read to know their content."""

    count: int

    def __str__(self) -> str:
        return f"{self.count} file{'s' if self.count != 1 else ''} new or changed, to be read"


@dataclass(frozen=True)
class OutputMissing(Reason):
    """The bundle is cached, but not at its place."""

    path: str

    def __str__(self) -> str:
        return f"{self.path} does not exist"


@dataclass(frozen=True)
class OutputChanged(Reason):
    """What stands at the bundle's place is not the bundle; `files` are those that differ, or are missing or added."""

    path: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.files[:_MOST_FILES])
        more = f" and {len(self.files) - _MOST_FILES} more" if len(self.files) > _MOST_FILES else ""
        return f"{self.path} has been changed" + (f": {shown}{more}" if self.files else "")


@dataclass(frozen=True)
class AlwaysAsked(Reason):
    """The task was told to run whatever the cache holds (`doit --always-execute`)."""

    def __str__(self) -> str:
        return "asked for with --always-execute"


def differences(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], producers: Mapping[str, str], unknown: Mapping[str, str]
) -> tuple[Reason, ...]:
    """Compare an action's key document with the one of its last run.

    Args:
        old: the document of the last run; None when there was none.
        new: the document now, without the inputs whose digest is not known yet.
        producers: role → task that makes the input.
        unknown: role → task, of the inputs that will be made first.

    Returns:
        Every reason; empty when the documents are the same.
    """
    waiting = tuple(InputWillRun(role, producer) for role, producer in unknown.items())
    if old is None:
        return (NeverBuilt(), *waiting)
    if old["format"] != new["format"]:
        return (FormatChanged(), *waiting)
    reasons: list[Reason] = []
    if old["stage_version"] != new["stage_version"]:
        reasons.append(StageVersionChanged(new["stage"], old["stage_version"], new["stage_version"]))
    reasons += [ParameterChanged(*change) for change in _changes("", old["parameters"], new["parameters"])]
    reasons += [ToolChanged(*change) for change in _changes("", old["tools"], new["tools"])]
    for role in sorted({*producers} - {*unknown}):
        if old["inputs"].get(role) != new["inputs"].get(role):
            reasons.append(InputChanged(role, producers[role]))
    if dropped := tuple(sorted({*old["inputs"]} - {*producers})):
        reasons.append(InputsDropped(dropped))
    return (*reasons, *waiting)


def _changes(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _changes(f"{prefix}{name}.", before, after)
        elif before != after:
            yield f"{prefix}{name}", before, after


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return "yes" if value is True else "no" if value is False else str(value)
