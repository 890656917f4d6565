"""The plan as a table: each action as cached or to run, why, what it should cost, and who shares it."""

from collections.abc import Mapping, Sequence
from typing import TextIO

from sdbuild.console.tables import shown_bytes, shown_seconds, write_table
from sdbuild.plan.action import Action
from sdbuild.plan.planner import Plan
from sdbuild.plan.reasons import InputWillRun, NeverBuilt, Reason
from sdbuild.plan.status import Statuses
from sdbuild.store import Store

_WAITING_SHOWN = 3


def show_plan(plan: Plan, store: Store, shared: Mapping[str, tuple[str, ...]], stream: TextIO | None = None) -> None:
    """Write the plan's table and its totals; `store` should have been opened for reading only."""
    statuses = Statuses(plan.graph, store, plan.outputs)
    rows, to_run, seconds = [], 0, 0.0
    for action in plan.graph:
        status = statuses[action]
        expected = ""
        if not status.cached:
            to_run += 1
            past = store.expectation(statuses.slot(action)) or store.expectation(_kind(action), status.document)
            # A bundle that is only to be put at its place is not made again.
            if past is not None and status.digest is None:
                seconds += past.seconds
                expected = f"{shown_seconds(past.seconds)}, {shown_bytes(past.memory)}"
        users = _users(plan, action, shared.get(action.name, ()))
        rows.append((action.name, "cached" if status.cached else "run", expected, users, why(status.reasons)))
    write_table(("action", "status", "expected", "used by", "why"), rows, stream)
    total = f"{to_run} to run, {len(rows) - to_run} cached"
    print(f"{total}; expected {shown_seconds(seconds)} of work" if seconds else total, file=stream)


def why(reasons: Sequence[Reason]) -> str:
    """The reasons in one line; what has to come first is told only as far as it says something."""
    told = [str(reason) for reason in reasons if not isinstance(reason, InputWillRun)]
    waiting = [reason.producer for reason in reasons if isinstance(reason, InputWillRun)]
    if waiting and not any(isinstance(reason, NeverBuilt) for reason in reasons):
        more = f" and {len(waiting) - _WAITING_SHOWN} more" if len(waiting) > _WAITING_SHOWN else ""
        told.append(f"after {', '.join(waiting[:_WAITING_SHOWN])}{more}")
    return "; ".join(told)


def _kind(action: Action) -> str:
    return action.name.partition("@")[0]


def _users(plan: Plan, action: Action, recipes: Sequence[str]) -> str:
    """The targets, where the recipe has several, and the other recipes that use an action's result."""
    selected = [name for name in action.targets if name in plan.targets]
    users = []
    if len(plan.targets) > 1 and action.stage.name != "bundle":
        users = ["all targets"] if len(selected) == len(plan.targets) else selected
    return ", ".join([*users, *(f"recipe {name}" for name in recipes)])
