"""Run one action: at most once at a time, in a process of its own, its result recorded when it is whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sdbuild.execute.action import ActionSpec
from sdbuild.execute.errors import ActionFailed
from sdbuild.execute.failure import explain
from sdbuild.execute.file_lock import locked
from sdbuild.execute.memory_budget import Reservation, reserved
from sdbuild.execute.process import Ending, Job, check_stopped, run_worker
from sdbuild.execute.report import Reporter
from sdbuild.stages.notes import take_notes
from sdbuild.store import ActionResult, Store
from sdbuild.store.files import remove

_UNSAFE = re.compile(r"[^\w.@+-]")
_MEMORY_MARGIN = 1.1  # runs of one kind differ a little


def run_action(store: Store, spec: ActionSpec, *, reporter: Reporter) -> ActionResult:
    """Run an action, or take its result if another process has just made it.

    Raises:
        ActionFailed: the stage failed or its process was ended; nothing is recorded, the log is kept.
        Interrupted, KeyboardInterrupt: the worker has been ended and its files are gone.
    """

    def waiting(reason: str) -> None:
        reporter.waiting(spec.name, reason)

    store.prepare()
    for folder in (store.layout.locks, store.layout.logs):
        folder.mkdir(exist_ok=True)
    try:
        with locked(store.layout.locks / f"{spec.key}.lock", waiting, check_stopped):
            result = store.lookup(spec.key)  # another process may have finished it meanwhile
            if result is None:
                amount = int(spec.memory * _MEMORY_MARGIN)
                with reserved(store.layout.locks, amount, waiting, check_stopped) as reservation:
                    result = _run(store, spec, reporter, reservation)
    except BaseException as error:
        reporter.failed(spec.name, error)
        raise
    reporter.finished(spec.name, result)
    return result


def _run(store: Store, spec: ActionSpec, reporter: Reporter, reservation: Reservation) -> ActionResult:
    reporter.started(spec.name)
    began = time.monotonic()
    log = store.layout.logs / f"{_UNSAFE.sub('-', spec.name)}-{spec.key[:12]}-{_stamp()}.log"
    scratch = store.scratch()
    try:
        job = _prepare(store, spec, scratch, log)
        ending = run_worker(job, reservation.running_as, _forward(spec.name, reporter))
        _check(store, spec, ending, log)
        notes = take_notes(job.out)
        tree = store.put_tree(job.out, move=True)
    finally:
        remove(scratch)
    result = ActionResult(
        tree=tree.digest,
        seconds=round(time.monotonic() - began, 3),
        peak_rss=ending.peak_rss,
        peak_anonymous=ending.peak_anonymous,
        log=str(log.relative_to(store.root)),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=notes,
    )
    store.record(spec.key, spec.document, result, name=spec.name.partition("@")[0])
    return result


def _prepare(store: Store, spec: ActionSpec, scratch: Path, log: Path) -> Job:
    inputs = {role: scratch / "inputs" / role for role in spec.inputs}
    for role, digest in spec.inputs.items():
        store.materialise(digest, inputs[role], mode="input")
    out = scratch / "out"
    out.mkdir()
    heading = {"action": spec.name, "key": spec.key, "entry": spec.entry, "params": spec.params, "inputs": spec.inputs}
    log.write_text(json.dumps(heading, indent=1, default=dict) + "\n\n")
    return Job(spec.entry, spec.params, inputs, out, log, scratch)


def _check(store: Store, spec: ActionSpec, ending: Ending, log: Path) -> None:
    if ending.status != 0 or ending.event.get("event") != "done":
        raise explain(spec.name, ending, log)
    for role, digest in spec.inputs.items():
        changed = store.missing(digest)
        if changed:
            raise ActionFailed(
                spec.name,
                f"its input {role} ({', '.join(changed[:3])}) changed while it ran, so the result cannot be trusted",
                log=log,
                hint="Leave the checkpoint's files alone during a build, and run it again.",
            )


def _forward(name: str, reporter: Reporter) -> Callable[[float | None, str, int], None]:
    def forward(fraction: float | None, message: str, memory: int) -> None:
        reporter.progress(name, fraction, message, memory)

    return forward


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
