"""`cache gc` beside the real build: it waits for one that ends or is killed, and nothing needed is lost."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.program import Workspace, content
from tests.e2e.test_kill import kill

WORDS = ("recipe=phone", "verify=off")
FORGOTTEN = ("convert:vae_decoder", "bundle:iphone-15-pro")


def start_building(work: Workspace) -> "subprocess.Popen[str]":
    """A build that has found what is in the cache and is at work on the rest."""
    process = work.start(*WORDS)
    program = psutil.Process(process.pid)
    while not program.children(recursive=True):
        assert process.poll() is None, "the build ended before it had started a worker"
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("killed", [False, True])
def test_a_collection_beside_a_build(built: Workspace, tmp_path: Path, killed: bool) -> None:
    work = built.clone(tmp_path)
    work("forget", *WORDS, *FORGOTTEN)
    work("clean", *WORDS)
    build = start_building(work)
    collection = work.start("cache", "gc", "--max-size", "0")
    assert collection.stderr is not None
    assert "a build is using the cache" in collection.stderr.readline()
    assert collection.poll() is None
    if killed:
        kill(build)
    else:
        _, err = build.communicate()
        assert build.returncode == 0, err
        assert content(work.bundle()) == content(built.bundle())
    out, err = collection.communicate()
    assert "remain in" in out, err
    ran = work("plan", *WORDS)
    assert len(ran.to_run()) > len(FORGOTTEN), "everything went, as it was asked for"
    assert work("cache", "verify").status == 0
    if killed:
        assert work(*WORDS).status == 0
        assert content(work.bundle()) == content(built.bundle())
