"""Deaths: of the worker, of its parent, of both, and interrupts."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sdbuild.execute import ActionFailed, ActionSpec, Interrupted, run_action, stop_all
from sdbuild.store import Store

MakeSpec = Callable[..., ActionSpec]

# Interrupts are heard even where the tests run as a background job, which ignores them and lets its children do so.
_PARENT = """
import json, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[3])
from sdbuild.execute import ActionSpec, PlainReporter, run_action
from sdbuild.store import Store
spec = ActionSpec(**json.loads(sys.argv[2]))
print(run_action(Store(Path(sys.argv[1])), spec, reporter=PlainReporter(sys.stderr)).tree)
"""


def _parent(store: Store, spec: ActionSpec) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            _PARENT,
            str(store.root),
            json.dumps(dataclasses.asdict(spec)),
            str(Path(__file__).parent),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )


def _wait(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _pids(path: Path) -> list[int]:
    _wait(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


def _gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_worker_that_is_killed_ends_its_action_alone(
    store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path
) -> None:
    action = spec("linger", pids=str(tmp_path / "pids"))
    failures: list[ActionFailed] = []

    def run() -> None:
        with pytest.raises(ActionFailed) as caught:
            run_action(store, action, reporter=recorder)
        failures.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    worker, child = _pids(tmp_path / "pids")
    os.kill(worker, signal.SIGKILL)
    thread.join(10)
    assert "lack of memory" in str(failures[0])
    _wait(lambda: _gone(child))  # what the stage started goes too
    assert store.lookup(action.key) is None
    assert list(store.layout.scratch.iterdir()) == []


def test_a_worker_dies_with_its_parent(store: Store, spec: MakeSpec, tmp_path: Path) -> None:
    action = spec("linger", pids=str(tmp_path / "pids"))
    parent = _parent(store, action)
    worker, child = _pids(tmp_path / "pids")
    parent.kill()
    parent.communicate()
    _wait(lambda: _gone(worker), 3)
    assert store.lookup(action.key) is None
    assert len(list(store.layout.scratch.iterdir())) == 1
    fresh = Store(store.root)
    fresh.prepare()
    assert list(fresh.layout.scratch.iterdir()) == []
    if not _gone(child):
        os.kill(child, signal.SIGKILL)


def test_the_next_build_is_not_held_up_by_a_killed_one(
    store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path
) -> None:
    slow = spec("write", text="x", milliseconds=30_000)
    parent = _parent(store, slow)
    _wait(lambda: bool(list(store.layout.scratch.glob("*/out/model/text"))))
    parent.kill()
    parent.communicate()
    quick = ActionSpec(**{**vars(slow), "params": {"text": "x"}})  # the same key
    began = time.monotonic()
    run_action(Store(store.root), quick, reporter=recorder)
    assert time.monotonic() - began < 10
    assert "waiting" not in recorder.kinds()
    assert list(store.layout.scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_worker_cleanly(
    store: Store, spec: MakeSpec, tmp_path: Path, number: signal.Signals
) -> None:
    parent = _parent(store, spec("linger", pids=str(tmp_path / "pids")))
    worker, child = _pids(tmp_path / "pids")
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=10)
    assert parent.returncode == -number
    _wait(lambda: _gone(worker), 3)
    if number == signal.SIGINT:
        _wait(lambda: _gone(child), 3)
        assert "failed" in errors
        assert list(store.layout.scratch.iterdir()) == []
    elif not _gone(child):
        os.kill(child, signal.SIGKILL)


def test_stop_all_ends_actions_in_other_threads(store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def run(action: ActionSpec) -> None:
        try:
            run_action(store, action, reporter=recorder)
        except Interrupted as error:
            caught.append(error)

    running = spec("linger", pids=str(tmp_path / "pids"))
    threads = [threading.Thread(target=run, args=(running,)) for _ in range(2)]  # the second one waits for the first
    for thread in threads:
        thread.start()
    worker, child = _pids(tmp_path / "pids")
    _wait(lambda: "waiting" in recorder.kinds())
    stop_all()
    for thread in threads:
        thread.join(10)
    assert len(caught) == 2
    assert _gone(worker)
    _wait(lambda: _gone(child))


def test_two_processes_make_one_action_once(store: Store, spec: MakeSpec, tmp_path: Path) -> None:
    action = spec("write", text="x", count=str(tmp_path / "count"), milliseconds=500)
    parents = [_parent(store, action) for _ in range(3)]
    endings = [parent.communicate(timeout=20) for parent in parents]
    assert [parent.returncode for parent in parents] == [0, 0, 0], endings
    assert len({output for output, _ in endings}) == 1
    assert (tmp_path / "count").read_text() == "ran\n"
    waited = [errors for _, errors in endings if "waits for process" in errors]
    assert len(waited) == 2
    assert (
        f"process {next(p.pid for p, (_, e) in zip(parents, endings, strict=True) if 'started' in e)} on" in waited[0]
    )
    assert not list(store.layout.locks.iterdir())


def test_without_locks_both_make_it_and_both_succeed(
    store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("sdbuild.execute.file_lock.fcntl.flock", unsupported)
    action = spec("write", text="x", count=str(tmp_path / "count"), milliseconds=300)
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(run_action(store, action, reporter=recorder).tree))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 2
    assert results[0] == results[1]
    assert (tmp_path / "count").read_text() == "ran\nran\n"
    assert store.lookup(action.key) is not None
