"""The account of a plan's sources, as far as their files are here: what stops a build, and what people should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.checkpoints.account import Account, Entry, Kind, Use
from sdbuild.checkpoints.account.sources import Asked, account_of
from sdbuild.plan.action import Action, Graph
from sdbuild.plan.status import Statuses
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError
from sdbuild.store import Store

_SHOWN = 8
"""Entries of one file that messages name; of the rest they tell the number."""


class Accounts:
    """The accounts of one plan; each source is read once.

    Args:
        graph: what may be built.
        statuses: what the cache says.
        store: where fetched files are.
    """

    def __init__(self, graph: Graph, statuses: Statuses, store: Store) -> None:
        self._actions = [action for action in graph if action.stage.name == "account"]
        self._statuses = statuses
        self._store = store
        self._known: dict[tuple[Asked, str], tuple[Account, Mapping[str, Path]]] = {}

    def read(self) -> dict[str, Account]:
        """Role → account of every source whose files are here; the same role of two targets is told once."""
        return {role: account for role, (account, _) in self._read()}

    def check(self) -> None:
        """Refuse what no build can use.

        Raises:
            RecipeError: names the user's file, what it holds, and what to do.
        """
        refused = [line for _, (account, files) in self._read() for line in _lines(account, files, Use.REFUSED)]
        if refused:
            raise RecipeError([Diagnostic("account", line) for line in dict.fromkeys(refused)])

    def warnings(self) -> list[str]:
        """What is left out that might matter, and what is assumed."""
        told = (line for _, (account, files) in self._read() for line in _lines(account, files, Use.WARNED))
        return list(dict.fromkeys(told))

    def _read(self) -> Iterator[tuple[str, tuple[Account, Mapping[str, Path]]]]:
        for action in self._actions:
            for role, source in action.inputs.items():
                files = self._files(source)
                if files is None:
                    continue
                asked = Asked(**action.parameters["sources"][role])
                key = asked, str(sorted(files.items()))
                if key not in self._known:
                    # What was fetched lies in the cache under its digest, which tells people nothing.
                    self._known[key] = account_of(asked, files), source.files
                yield role, self._known[key]

    def _files(self, source: Action) -> Mapping[str, Path] | None:
        if source.files:
            return source.files
        digest = self._statuses[source].digest
        return self._store.locate(digest) if digest is not None else None


def _lines(account: Account, files: Mapping[str, Path], use: Use) -> Iterator[str]:
    """One line an entry, with the file as the user knows it."""
    places: dict[str, list[Entry]] = {}
    for entry in account.of(use):
        places.setdefault(entry.place, []).append(entry)
    for place, entries in places.items():
        own = files.get(place)
        shown = str(own) if own is not None else f"{account.source}: {place}"
        for entry in entries[:_SHOWN]:
            yield f"{shown}: {entry.reason if entry.kind is Kind.FILE else entry.sentence}"
        if len(entries) > _SHOWN:
            yield f"{shown}: and {len(entries) - _SHOWN} more"
