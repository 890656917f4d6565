"""`cache`: how much the cache holds, whether it is sound, and what may go."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from sdbuild.console.command import VariableCommand, command_line_variables
from sdbuild.console.tables import shown_bytes, shown_seconds, write_table
from sdbuild.console.waiting import for_builds
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.errors import PlanError, nearest
from sdbuild.plan.options import check_variables

_ACTIONS = ("sizes", "verify", "gc")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_AGE = re.compile(r"(?P<count>\d+(\.\d+)?) ?(?P<unit>[smhdw])")
_HOUR = 3600.0
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_REDRAWS = 0.1
_CLEAR = "\r\x1b[K"


class Command(VariableCommand):
    """Look after the cache."""

    name = "cache"
    doc_purpose = "show what the cache holds, check every byte of it, or remove what is no longer wanted"
    guide = "cache"
    variables = ()
    doc_usage = "sizes | verify | gc [--max-size 20GB] [--older-than 30d] [--dry-run]"

    def execute(self, opt_values: Mapping[str, Any], pos_args: Sequence[str]) -> int:
        """Run one of its actions; the exit status is 1 where damage was found or the cache is still too large."""
        check_variables(command_line_variables(), (), self.name)
        if not pos_args or pos_args[0] not in _ACTIONS:
            given = f"unknown word '{pos_args[0]}'{nearest(pos_args[0], _ACTIONS)}; " if pos_args else ""
            raise PlanError(f"cache: {given}usage: cache {self.doc_usage}")
        options = _parser().parse_args(pos_args)
        match options.action:
            case "sizes":
                return _sizes()
            case "verify":
                return _verify()
            case _:
                return _collect(options.max_size, options.older_than, dry_run=options.dry_run)


def _sizes() -> int:
    """Write what there is, and for each recipe what its tasks stand on."""
    from sdbuild.store import Store

    store = Store(cache_directory(), read_only=True)
    sizes, results = store.sizes(), store.results()
    recipes = sorted({task.partition("/")[0] for held in results for task in held.tasks})
    rows = []
    for recipe in recipes:
        mine = [held for held in results if any(task.partition("/")[0] == recipe for task in held.tasks)]
        rows.append((recipe, str(len(mine)), shown_bytes(store.bytes_of(mine)), _ago(max(h.last_used for h in mine))))
    if loose := [held for held in results if not held.tasks]:
        rows.append(("(no task)", str(len(loose)), shown_bytes(store.bytes_of(loose)), _ago(loose[-1].last_used)))
    if rows:
        write_table(("recipe", "results", "size", "last used"), rows)
        print()
    write_table(
        ("what", "number", "size"),
        [
            ("artifacts", str(sizes.blobs), shown_bytes(sizes.blob_bytes)),
            ("read in place", str(sizes.referenced), ""),
            ("records", str(sizes.actions), shown_bytes(sizes.record_bytes)),
            ("logs", "", shown_bytes(sizes.log_bytes)),
            ("unfinished", "", shown_bytes(sizes.scratch_bytes)),
            ("damaged", "", shown_bytes(sizes.corrupt_bytes)),
            ("all", "", shown_bytes(sizes.bytes)),
        ],
    )
    print(f"\n{store.root}")
    return 0


def _verify() -> int:
    """Read every byte; write what was damaged, and what has to be made again for it."""
    from sdbuild.store import Store

    store = Store(cache_directory())
    if not store.root.is_dir():
        print(f"{store.root}: nothing there yet")
        return 0
    with _progress() as progress:
        damaged = store.verify(progress)
    print(f"{store.sizes().blobs} files are what their names say, {len(damaged)} were not: {store.root}")
    if damaged:
        titles = sorted({held.title for held in store.results() if store.needs(held, damaged)})
        print(
            f"what was damaged is out of the way; made again by the next build: {', '.join(titles) or 'nothing'}",
            file=sys.stderr,
        )
    return 1 if damaged else 0


def _collect(max_bytes: int | None, max_age: float | None, *, dry_run: bool) -> int:
    """Remove what the bounds leave no room for, or only show it."""
    from sdbuild.store import Retention, Store

    retention = Retention(max_bytes, max_age)
    store = Store(cache_directory(), read_only=dry_run)
    if not store.root.is_dir():
        print(f"{store.root}: nothing there yet")
        return 0
    if dry_run:
        garbage = store.garbage(retention, grace_seconds=0)
        _show(garbage)
        print(f"{shown_bytes(garbage.bytes)} would go, {shown_bytes(garbage.remaining)} would remain in {store.root}")
        return 0
    with store.unused(for_builds) as certain:
        grace = 0.0 if certain else _HOUR
        garbage = store.garbage(retention, grace_seconds=grace)
        _show(garbage)
        with _progress() as progress:
            collected = store.gc(retention, grace_seconds=grace, progress=progress)
    remaining = store.sizes().bytes
    print(f"{shown_bytes(collected.bytes)} gone, {shown_bytes(remaining)} remain in {store.root}")
    if collected.linked_bytes:
        print(
            f"{shown_bytes(collected.linked_bytes)} of that are shared with bundles that were built from it, and take "
            "their space until those are removed (`clean`)",
            file=sys.stderr,
        )
    if max_bytes is not None and remaining > max_bytes:
        print(
            f"more than --max-size {shown_bytes(max_bytes)}: the rest is in use, or logs and records", file=sys.stderr
        )
        return 1
    return 0


def _show(garbage: Any) -> None:
    rows = [(drop.result.title, _ago(drop.result.last_used), shown_bytes(drop.bytes)) for drop in garbage.dropped]
    if rows:
        write_table(("result", "last used", "frees"), rows)
        print()


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """Show how far a long walk is: one line that is redrawn on a terminal, a line now and then elsewhere."""
    live = sys.stderr.isatty()
    last = time.monotonic()

    def show(fraction: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= (_SECONDS_BETWEEN_REDRAWS if live else _SECONDS_BETWEEN_LINES):
            last = now
            line = f"{fraction:4.0%} {message}"
            print(f"{_CLEAR}{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if live:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise PlanError(f"cache: {message}; usage: cache {Command.doc_usage}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sdbuild cache", description=Command.doc_purpose)
    actions = parser.add_subparsers(dest="action", parser_class=_Parser)
    actions.add_parser("sizes", help="what the cache holds, by recipe and by kind")
    actions.add_parser("verify", help="read every file and set aside those that are not what they were")
    gc = actions.add_parser("gc", help="remove results that no recipe's task stands for now, or by use")
    gc.add_argument("--max-size", type=_bytes, metavar="SIZE", help="least recently used first, until it fits: 20GB")
    gc.add_argument("--older-than", type=_seconds, metavar="AGE", help="what no build has used for so long: 12h, 30d")
    gc.add_argument("--dry-run", action="store_true", help="only show what would go")
    return parser


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; write 500MB, 20GB or 20GiB") from None


def _seconds(text: str) -> float:
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no age; write 90m, 12h, 30d or 2w")
    return float(found["count"]) * _UNITS[found["unit"]]


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    if seconds < 2 * _UNITS["h"]:
        return f"{shown_seconds(seconds)} ago"
    return (
        f"{seconds / _UNITS['h']:.0f} h ago" if seconds < 2 * _UNITS["d"] else f"{seconds / _UNITS['d']:.0f} days ago"
    )
