"""Builds and collections take turns, whatever ends their processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.store import Store

_HOLD = """
import sys, time
from pathlib import Path
from sdbuild.store import Store
with Store(Path(sys.argv[1])).in_use(lambda: print("waits", flush=True)):
    print("builds", flush=True)
    time.sleep(600)
"""


def build(root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_collection_waits_for_every_build_and_goes_on_when_the_last_is_killed(tmp_path: Path) -> None:
    builds = [build(tmp_path / "cache") for _ in range(2)]
    assert [line(process) for process in builds] == ["builds", "builds"]
    builds[0].kill()
    builds[0].wait()
    waited = []

    def waiting() -> None:
        waited.append(builds[1].poll())
        builds[1].kill()

    with Store(tmp_path / "cache").unused(waiting) as certain:
        assert certain
        assert waited == [None], "it waits while a build runs, and says so once"
        assert builds[1].wait() != 0
    for process in builds:
        process.communicate()


def test_a_build_waits_for_a_collection(tmp_path: Path) -> None:
    with Store(tmp_path / "cache").unused(lambda: None):
        process = build(tmp_path / "cache")
        assert line(process) == "waits"
    assert line(process) == "builds"
    process.kill()
    process.communicate()


def test_without_locks_nothing_is_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    store = Store(tmp_path / "cache")
    with store.in_use(lambda: None), store.unused(lambda: None) as certain:
        assert not certain
