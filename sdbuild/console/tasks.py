"""Actions as doit's tasks, and the little that doit itself has to remember."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed

from sdbuild.console.endings import described
from sdbuild.console.reporter import reporter_for
from sdbuild.plan.action import Action, closure
from sdbuild.plan.session import Session, doc_of
from sdbuild.stages import load_stage, stage_names


def doit_config(session: Session) -> dict[str, Any]:
    """The settings that doit reads, for one build."""
    return {
        "default_tasks": list(session.plan.outputs),
        "reporter": reporter_for(session),
        "backend": "sdbuild",
        "dep_file": str(session.store.root / "ignored" / f"{session.plan.graph.recipe}.json"),
        # Worker processes do the work; doit's own processes would be in the way, and fail where `spawn` is used.
        "par_type": "thread",
        "verbosity": 2,
    }


def doit_tasks(session: Session) -> Iterator[dict[str, Any]]:
    """The graph in doit's form: a group a stage, a subtask an action."""
    present = {action.name.partition(":")[0] for action in session.plan.graph}
    for name, doc in groups().items():
        if name in present:
            yield {"basename": name, "name": None, "doc": doc}
    for action in session.plan.graph:
        yield _task(session, action)
    yield from _shared_names(session)


def _shared_names(session: Session) -> Iterator[dict[str, Any]]:
    """A name without a target, as `quantize:unet`, stands for the work of every target that differs there."""
    variants: dict[str, list[str]] = {}
    for action in session.plan.graph:
        base, at, _ = action.name.partition("@")
        if at:
            variants.setdefault(base, []).append(action.name)
    for base, names in variants.items():
        stage, _, name = base.partition(":")
        yield {
            "basename": stage,
            "name": name,
            "doc": f"{name} for all targets: {', '.join(names)}",
            "actions": None,
            "task_dep": names,
        }


def groups() -> dict[str, str]:
    """The first halves of tasks' names, and what such tasks do, in the order in which artifacts go through them."""
    found: dict[str, str] = {}
    for stage in map(load_stage, stage_names()):
        found |= {**dict(stage.further_groups), stage.name: stage.group}
    return found


def _task(session: Session, action: Action) -> dict[str, Any]:
    stage, _, name = action.name.partition(":")
    task: dict[str, Any] = {
        "basename": stage,
        "name": name,
        "doc": doc_of(action),
        "actions": [(_run, [session, action])],
        "uptodate": [(_is_current, [session, action])],
        "task_dep": [producer.name for producer in dict.fromkeys(action.inputs.values())],
        # Capturing would replace sys.stdout for all threads; actions run in processes of their own and have log files.
        "io": {"capture": False},
        "verbosity": 2,
    }
    if stage == "convert":
        # For order alone: the recipe is checked against the checkpoint's configuration before anything is converted.
        task["task_dep"] += [index.name for index in session.plan.graph if _is_index_of(index, action)]
    output = session.statuses.output(action)
    if output is not None:
        task["task_dep"] = [producer.name for producer in closure(action)]
        task["targets"] = [str(output / str(action.stage.product))]
        task["clean"] = [(_clean, [session, action, str(output)])]
    return task


def _is_index_of(index: Action, action: Action) -> bool:
    return index.stage.name == "source" and index.component == "index" and bool({*index.targets} & {*action.targets})


def _is_current(session: Session, action: Action) -> bool:
    try:
        return session.is_current(action)
    except Exception as error:
        # What stands in the way is told when the action is run, with the same words for every failure.
        session.refuse(action, *described(error))
        return False


def _run(session: Session, action: Action) -> TaskFailed | None:
    try:
        failure = session.run(action)
    except Exception as error:
        failure = session.refuse(action, *described(error))
    return TaskFailed(failure) if failure is not None else None


def _clean(session: Session, action: Action, output: str, dryrun: bool) -> None:
    if not Path(output).is_dir():
        return
    print(f"{action.name} - removing '{output}'")
    if not dryrun:
        try:
            session.clean(action)
        except Exception as error:
            # doit would show whatever leaves a task's function with a traceback, and end with status 0.
            print(session.refuse(action, *described(error)), file=sys.stderr)
