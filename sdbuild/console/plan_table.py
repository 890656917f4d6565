"""The plan as a table: each action as cached or to run, why, what it should cost, and who shares it."""

from collections.abc import Mapping, Sequence

from sdbuild.console.tables import shown_bytes, shown_seconds, write_table
from sdbuild.paths import shown_path
from sdbuild.plan.action import Action
from sdbuild.plan.costs import Cost, Costs
from sdbuild.plan.planner import Plan
from sdbuild.plan.reasons import InputWillRun, NeverBuilt, Reason
from sdbuild.plan.status import Statuses

_WAITING_SHOWN = 3


def show_plan(plan: Plan, statuses: Statuses, costs: Costs, shared: Mapping[str, tuple[str, ...]]) -> None:
    """Write the plan's table and its totals.

    Args:
        plan: what was asked for.
        statuses: what the cache has.
        costs: what each action is expected to take.
        shared: task → the other recipes that use its result.
    """
    rows, to_run, total = [], 0, Total()
    for action in plan.graph:
        status = statuses[action]
        expected, size = "", costs.size(action)
        # A bundle that is only to be put at its place is not made again.
        if not status.cached and status.digest is None:
            cost = costs[action]
            total.add(cost)
            expected = shown_cost(cost)
        to_run += not status.cached
        users = _users(plan, action, shared.get(action.name, ()))
        state = "cached" if status.cached else "run"
        rows.append((action.name, state, expected, _shown_size(size), users, why(status.reasons)))
    write_table(("action", "status", "expected", "size", "used by", "why"), rows)
    print(f"{to_run} to run, {len(rows) - to_run} cached" + (f"; {total}" if to_run else ""))
    for bundle in (action for action in plan.graph.products() if action.stage.name == "bundle"):
        print(f"bundle: {shown_path(plan.outputs[bundle.name])} (size: {_shown_size(costs.size(bundle))})")


def _shown_size(size: int | None) -> str:
    if size is None:
        return "unknown"
    return shown_bytes(size) if size else "small"


class Total:
    """What all actions together are expected to take."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._unknown = 0
        self._download = 0
        self._unknown_download = False

    def add(self, cost: Cost) -> None:
        """Count one action."""
        if cost.seconds is None and cost.download == 0:
            self._unknown += 1
        self._seconds += cost.seconds or 0.0
        self._unknown_download |= cost.download is None
        self._download += cost.download or 0

    def __str__(self) -> str:
        work = f"expected {shown_seconds(self._seconds)} of work"
        if self._unknown:
            work += f", and {self._unknown} of unknown cost"
        if self._unknown_download:
            return f"{work}; downloads of {shown_bytes(self._download)} at least, the rest is unknown"
        return f"{work}; downloads of {shown_bytes(self._download)}" if self._download else work


def shown_cost(cost: Cost) -> str:
    """Seconds and memory: `about` where they are estimated, and what is not known says so."""
    if cost.seconds is None:
        return "unknown" if cost.download == 0 else "download"
    memory = "" if cost.memory is None else f", {shown_bytes(cost.memory)}"
    return f"{'' if cost.measured else 'about '}{shown_seconds(cost.seconds)}{memory}"


def why(reasons: Sequence[Reason]) -> str:
    """The reasons in one line; what has to come first is told only as far as it says something."""
    shown = [str(reason) for reason in reasons if not isinstance(reason, InputWillRun)]
    waiting = [reason.producer for reason in reasons if isinstance(reason, InputWillRun)]
    if waiting and not any(isinstance(reason, NeverBuilt) for reason in reasons):
        more = f" and {len(waiting) - _WAITING_SHOWN} more" if len(waiting) > _WAITING_SHOWN else ""
        shown.append(f"after {', '.join(waiting[:_WAITING_SHOWN])}{more}")
    return "; ".join(shown)


def _users(plan: Plan, action: Action, recipes: Sequence[str]) -> str:
    """The targets, where the recipe has several, and the other recipes that use an action's result."""
    selected = [name for name in action.targets if name in plan.targets]
    users = []
    if len(plan.targets) > 1 and action.stage.name != "bundle":
        users = ["all targets"] if len(selected) == len(plan.targets) else selected
    return ", ".join([*users, *(f"recipe {name}" for name in recipes)])
