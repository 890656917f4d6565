"""What is said at the end of a build: what ran and what it cost, sizes, verification, where the bundles are."""

from collections.abc import Iterator

from sdbuild.console.plan_table import why
from sdbuild.console.tables import plain_lines, shown_bytes, shown_seconds
from sdbuild.paths import shown_path
from sdbuild.plan.action import Action, closure
from sdbuild.plan.session import Outcome, Session
from sdbuild.store import Store

_QUESTIONS = ("structure_db", "signal_db", "palettized_db")
_EQUAL = 999.0  # how a verification writes an infinite ratio


def summary(session: Session, store: Store) -> str:
    """The summary of a build as text; short when nothing ran."""
    outcomes = [outcome for outcome in session.outcomes.values() if outcome.action.name in _names(session)]
    ran = [outcome for outcome in outcomes if outcome.ran]
    cached = len(outcomes) - len(ran)
    failed = [outcome for outcome in ran if outcome.failure is not None]
    lines: list[str] = []
    if ran:
        headings = ("action", "result", "time", "memory", "why")
        lines += ["", *plain_lines(headings, [_row(outcome) for outcome in ran])]
        if sizes := list(_sizes(session, store)):
            lines += ["", *plain_lines(("component", "checkpoint", "converted", "quantized"), sizes)]
        if figures := list(_verification(session)):
            lines += ["", *plain_lines(("verified", "output", "structure", "signal", "palettized"), figures)]
        lines.append("")
    lines += [f"warning: {warning}" for warning in session.warnings] if ran else []
    counts = [f"{len(ran) - len(failed)} ran", f"{cached} cached"]
    if failed:
        counts.append(f"{len(failed)} failed")
    lines.append(", ".join(counts) if ran else f"nothing to do: {cached} cached")
    for name, path in session.outputs.items():
        size = _size(session, store, session.plan.graph[name]) or 0
        lines.append(f"{name.partition(':')[0]}: {shown_path(path)} ({shown_bytes(size)})")
    return "\n".join([*lines, *_unfinished(session)])


def _unfinished(session: Session) -> Iterator[str]:
    """What the bundles lack, and how to get it."""
    bundles = [name for name in session.outputs if session.plan.graph[name].stage.name == "bundle"]
    if not bundles:
        return
    if not all(session.plan.graph[name].parameters["verified"] for name in bundles):
        yield "not verified: nothing compared these models with the original; build without verify=off before shipping"
    if not all(session.plan.graph[name].parameters["compiled"] for name in bundles):
        yield (
            "not compiled: Resources holds packages, because only Xcode's compiler on a Mac makes .mlmodelc; the same "
            "command there, with this cache, does that alone"
        )


def _names(session: Session) -> set[str]:
    return {action.name for action in session.plan.graph}


def _row(outcome: Outcome) -> tuple[str, ...]:
    if outcome.failure is not None:
        return outcome.action.name, "failed", "", "", why(outcome.reasons)
    if outcome.result is None:
        return outcome.action.name, "ran", "", "", why(outcome.reasons)
    result = outcome.result
    return outcome.action.name, "ran", shown_seconds(result.seconds), shown_bytes(result.memory), why(outcome.reasons)


def _sizes(session: Session, store: Store) -> Iterator[tuple[str, ...]]:
    """Component, then the size of its checkpoint, its converted and its quantized package."""
    graph = session.plan.graph
    shipped = {action for bundle in graph.products() if bundle.stage.name == "bundle" for action in closure(bundle)}
    for convert in _stage(session, "convert"):
        trail = [convert.inputs["checkpoint"], convert]
        trail += [a for a in _stage(session, "quantize") if a.inputs["package"] is convert and a in shipped]
        sizes = [_size(session, store, action) for action in trail]
        if None not in sizes:
            shown = [shown_bytes(size) for size in sizes if size is not None]
            yield convert.name.removeprefix("convert:"), *shown, *[""] * (3 - len(shown))


def _size(session: Session, store: Store, action: Action) -> int | None:
    digest = session.statuses[action].digest
    tree = store.load_tree(digest) if digest is not None else None
    return tree.size if tree is not None else None


def _verification(session: Session) -> Iterator[tuple[str, ...]]:
    """Artifact and output, then the figures in decibels that its verification noted."""
    for action in _stage(session, "verify"):
        result = session.statuses[action].result
        for name, figures in (result.notes.get("outputs", {}) if result is not None else {}).items():
            shown = (_decibels(figures.get(question)) for question in _QUESTIONS)
            yield action.name.removeprefix("verify:"), name, *shown


def _decibels(value: float | None) -> str:
    if value is None:
        return ""
    return "equal" if value >= _EQUAL else f"{value:.1f} dB"


def _stage(session: Session, stage: str) -> list[Action]:
    return [action for action in session.plan.graph if action.stage.name == stage]
