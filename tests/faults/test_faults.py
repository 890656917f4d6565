"""Builds whose system calls fail or that are killed, several at once, and damaged caches: a sample of each kind.

`python -m tests.faults.campaign` does the same thousands of times.
"""

from __future__ import annotations

import errno
import random
import signal
from collections.abc import Iterator

import pytest

from tests.faults import ground
from tests.faults.ground import EVERYTHING, KILL, LINK, MAKE, OPEN, REMOVE, RENAME, SYNC, WRITE, Ground, damage

SEED = 16


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    shim = ground.compile_shim(tmp_path_factory.mktemp("shim"))
    if shim is None:
        pytest.skip("making system calls fail needs Linux and a C compiler")
    made = Ground(tmp_path_factory.mktemp("ground") / "root", shim)
    yield made
    made.close()


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EACCES, KILL], ids=["full", "broken", "refused", "kill"]
)
@pytest.mark.parametrize(
    "kinds",
    [WRITE, SYNC, RENAME, LINK, MAKE, OPEN, REMOVE],
    ids=["write", "sync", "rename", "link", "make", "open", "remove"],
)
def test_a_call_that_fails_ends_in_words_and_loses_nothing(build: Ground, kinds: int, code: int) -> None:
    calls = build.calls_of(kinds)
    chance = random.Random(f"{SEED} {kinds} {code}")
    moment = chance.randint(1, max(calls, 1))
    ended = build.run_from_nothing(kinds, moment, code)
    build.must_hold(ended, f"call {moment} of {calls} with {code}")


def test_faults_in_a_rebuild_leave_the_bundle_that_stands(build: Ground) -> None:
    build.clear()
    build.run()
    chance = random.Random(SEED)
    for moment in chance.sample(range(1, 60), 4):
        build.run("quantization.unet=4", kinds=EVERYTHING, moment=moment, code=chance.choice((errno.ENOSPC, KILL)))
        build.must_recover(f"a rebuild with a fault at call {moment}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_any_moment(build: Ground, number: int) -> None:
    build.clear()
    ended = build.run(after=random.Random(number).uniform(0.0, 0.5), signal=number)
    build.must_hold(ended, f"signal {number}")


@pytest.mark.parametrize("builders", [2, 4])
def test_builders_at_the_same_time(build: Ground, builders: int) -> None:
    build.clear()
    for ended in build.several(builders):
        assert ended.status == 0, ended.err
        assert "Traceback" not in ended.err
    build.must_recover(f"{builders} builders at once")


def test_damage_is_noticed_and_mended(build: Ground) -> None:
    chance = random.Random(SEED)
    build.clear()
    build.run()
    for _ in range(12):
        done = damage(build, chance)
        build.must_recover(done)


def test_the_harness_notices_what_it_is_for(build: Ground) -> None:
    build.clear()
    assert build.run().status == 0
    ended = build.run_from_nothing(WRITE, 40, errno.ENOSPC)
    assert ended.status != 0, "a fault that is injected is felt"
    killed = build.run_from_nothing(WRITE, 40, KILL)
    assert killed.signal == signal.SIGKILL
    build.must_recover("faults")
    document = build.folder / "build/phone/iphone-15-pro/bundle.json"
    document.chmod(0o644)
    document.write_text("{}")
    assert build.bundle() != build.calm
