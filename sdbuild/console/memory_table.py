"""The plan's second table: what each target's bundle needs in memory there, and whether an app may use that much."""

import json
from collections.abc import Mapping
from typing import Any, TextIO

from sdbuild.bundle.layout import DOCUMENT
from sdbuild.checkpoints.facts import CheckpointFacts
from sdbuild.console.tables import shown_bytes, write_table
from sdbuild.estimate.bundle_memory import estimate, summary
from sdbuild.plan.planner import Plan
from sdbuild.plan.status import Statuses
from sdbuild.recipe.load import resolve_for_target
from sdbuild.store import Store

_HEADINGS = ("memory on", "all models", "one at a time", "app may use", "the app loads", "fits", "told by")


def show_memory(
    plan: Plan, store: Store, statuses: Statuses, facts: CheckpointFacts | None, stream: TextIO | None = None
) -> None:
    """Write the table; nothing where the checkpoint is not known yet.

    Args:
        plan: what was asked for.
        store: the cache; a bundle that is in it tells by its programs.
        statuses: what the cache has.
        facts: what is known of the checkpoint, to tell what the rest will need.
        stream: where to write; by default standard output.
    """
    rows = []
    for bundle in (action for action in plan.graph.products() if action.stage.name == "bundle"):
        target = plan.targets[bundle.component]
        built = _of_programs(store, statuses[bundle].digest)
        if built is not None:
            rows.append(_row(target.name, built, "the programs"))
        elif facts is not None:
            found = estimate(resolve_for_target(plan.loaded, target), target, facts)
            rows.append(_row(target.name, summary(found), "the configuration") if found.models else ())
    if rows := [row for row in rows if row]:
        print(file=stream)
        write_table(_HEADINGS, rows, stream)


def _of_programs(store: Store, digest: str | None) -> Mapping[str, Any] | None:
    """What a built bundle says of itself."""
    places = (store.locate(digest) if digest is not None else None) or {}
    found: Mapping[str, Any] | None = (
        json.loads(places[DOCUMENT].read_bytes())["memory"] if DOCUMENT in places else None
    )
    return found


def _row(name: str, memory: Mapping[str, Any], source: str) -> tuple[str, ...]:
    return (
        name,
        shown_bytes(memory["all_models"]),
        shown_bytes(memory["one_at_a_time"]),
        shown_bytes(memory["app_memory"]),
        "one at a time" if memory["reduce_memory"] else "all models",
        "yes" if memory["fits"] else "no",
        source,
    )
