"""SIGKILL at random moments: the next build goes on, and its bundle is the one of a build that nothing disturbed.

`SDBUILD_KILL_ROUNDS` sets how many times a build is killed (8), and `SDBUILD_KILL_SEED` when.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from sdbuild.store import Store
from tests.e2e.program import PHONE, Workspace, content

ROUNDS = int(os.environ.get("SDBUILD_KILL_ROUNDS", "8"))
SEED = int(os.environ.get("SDBUILD_KILL_SEED", "20"))


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a build's process group; its workers must be gone with it."""
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "a worker outlived the build"


def kill_at(workspace: Workspace, seconds: float, *words: str) -> None:
    """Start a build and kill it after some seconds, unless it has ended before."""
    process = workspace.start(*words)
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
    else:
        assert process.returncode == 0, err


def kill_at_work(workspace: Workspace, *words: str) -> None:
    """Start a build and kill its process group as soon as it has a worker."""
    process = workspace.start(*words)
    program = psutil.Process(process.pid)
    while not program.children(recursive=True):
        assert process.poll() is None, "the build ended before it had started a worker"
        time.sleep(0.01)
    kill(process)


def assert_nothing_half_made(cache: Path) -> None:
    """Whatever the cache calls a result has all of its files, with the content that their names say."""
    store = Store(cache, read_only=True)
    for path in cache.glob("actions/*/*.result.json"):
        assert store.lookup(path.name.split(".")[0]) is not None, path


def survive(
    workspace: Workspace, words: tuple[str, ...], longest: float, bundle: Path, expected: dict[str, str]
) -> None:
    """Kill a build again and again, then let it run.

    Which rounds end before their moment depends on the machine, so at least one kill is made by `kill_at_work`.
    """
    kill_at_work(workspace, *words)
    moments = random.Random(SEED)
    for _ in range(ROUNDS):
        # Many early moments: the program's own writes lie between the stages' long seconds.
        kill_at(workspace, longest * moments.random() ** 2 + 0.2, *words)
        assert_nothing_half_made(workspace.cache)
        assert not bundle.exists() or content(bundle) == expected, "a bundle stands at its place whole or not at all"
    ran = workspace(*words)
    assert ran.status == 0, ran.err
    assert content(bundle) == expected
    assert Store(workspace.cache).verify() == []
    assert list((workspace.cache / "scratch").iterdir()) == []
    assert not list(workspace.cache.glob("corrupt/*"))
    assert workspace("plan", *words).to_run() == []


def test_a_build_that_is_killed_goes_on(built: Workspace, tmp_path: Path) -> None:
    work = built.clone(tmp_path / "killed")
    words = ("recipe=phone", "verify=off")
    # The UNet takes longest and shows nothing that the text encoder does not: its artifacts stay.
    work("forget", *words, "source:text_encoder", "convert:text_encoder", "bundle:iphone-15-pro")
    work("clean", *words)
    Store(work.cache).gc(grace_seconds=0)
    calm = work.clone(tmp_path / "calm")
    began = time.monotonic()
    assert calm(*words).status == 0
    longest = time.monotonic() - began
    survive(work, words, longest, work.bundle(), content(built.bundle()))


@pytest.mark.large
def test_a_whole_build_that_is_killed_goes_on(tmp_path: Path) -> None:
    calm = Workspace(tmp_path / "calm", tmp_path / "calm-cache")
    calm.recipe(PHONE)
    words = ("recipe=tiny-sd", "target=iphone-15-pro")
    began = time.monotonic()
    assert calm(*words).status == 0
    longest = (time.monotonic() - began) / 4
    killed = Workspace(tmp_path / "killed", tmp_path / "killed-cache")
    killed.recipe(PHONE)
    place = killed.bundle("tiny-sd")
    survive(killed, words, longest, place, content(calm.bundle("tiny-sd")))
