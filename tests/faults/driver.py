"""Builds in forked children, each with one fault: `LD_PRELOAD=shim.so python -m tests.faults.driver SHIM`.

Reads one JSON object a line: `words`, `folder` (where the command runs), `cache`, `root` (below which calls count),
`kinds`, `moment`, `code`, `builders` (how many at once), and `after` with `signal` to send one some seconds later.
Answers with one a line: for each builder its exit `status` or the `signal` that ended it, `calls`, `out` and `err`;
`hung` where it did not end. Forking makes a build cost what it does, without the second that imports take.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sdbuild import cli
from sdbuild.console import program
from sdbuild.plan.action import Action
from sdbuild.plan.status import Status
from sdbuild.store import ActionResult
from tests.plan.conftest import FakeWork

PATIENCE = 20.0


def _work() -> None:
    """Stages that take milliseconds, in this process."""
    work = FakeWork()

    def run(executor: Any, action: Action, status: Status, memory: int | None) -> ActionResult:
        return work.run(executor._store, action, status)

    program.LocalExecutor.run = run  # type: ignore[method-assign]


def _child(order: dict[str, Any], shim: ctypes.CDLL, scratch: Path) -> None:
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(order["folder"])
    os.environ["SDBUILD_CACHE"] = order["cache"]
    shim.fault_root(os.fsencode(order["root"]))
    shim.fault_arm(order["kinds"], order["moment"], order["code"])
    status = 99
    try:
        status = cli.main(order["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        calls = shim.fault_count()
        shim.fault_arm(0, 0, 0)
        (scratch / "calls").write_text(str(calls))
        os._exit(status)


def _serve(order: dict[str, Any], shim: ctypes.CDLL) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(number) for number in range(order.get("builders", 1))]
        children = {}
        for folder in folders:
            folder.mkdir()
            child = os.fork()
            if not child:
                _child(order, shim, folder)
            children[child] = folder
        if "after" in order:
            time.sleep(order["after"])
            for child in children:
                os.kill(child, order["signal"])
        return [_answer(child, folder) for child, folder in children.items()]


def _answer(child: int, folder: Path) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    calls = folder / "calls"
    return {
        "hung": not ended,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "calls": int(calls.read_text()) if calls.exists() else 0,
        "out": (folder / "out").read_text(errors="replace") if (folder / "out").exists() else "",
        "err": (folder / "err").read_text(errors="replace") if (folder / "err").exists() else "",
    }


def main() -> None:
    """Serve orders until the input ends."""
    shim = ctypes.CDLL(sys.argv[1])
    _work()
    # What a build imports late is imported once, here.
    import sdbuild.bundle.document
    import sdbuild.bundle.host
    import sdbuild.console.summary
    import sdbuild.execute  # noqa: F401

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line), shim)), flush=True)


if __name__ == "__main__":
    main()
