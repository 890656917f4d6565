"""The memory budget lets actions run together only while they fit, and never holds one up for ever."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from sdbuild.execute import ExecuteError
from sdbuild.execute.memory_budget import available_memory, memory_budget, reserved, usage_of
from sdbuild.store.owner import unique_name


def _run_together(folder: Path, amounts: list[int], seconds: float = 0.4) -> tuple[int, list[str]]:
    """The largest number of reservations that were held at once, and what waiting ones were told."""
    running, most, told = 0, 0, []
    lock = threading.Lock()

    def run(amount: int) -> None:
        nonlocal running, most
        with reserved(folder, amount, told.append, lambda: None):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(seconds)
            with lock:
                running -= 1

    threads = [threading.Thread(target=run, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return most, told


@pytest.fixture(autouse=True)
def _budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBUILD_MEMORY_GB", "4")


def test_what_fits_runs_together(tmp_path: Path) -> None:
    assert _run_together(tmp_path, [2_000_000_000, 2_000_000_000]) == (2, [])


def test_what_does_not_fit_waits_and_says_so(tmp_path: Path) -> None:
    most, told = _run_together(tmp_path, [3_000_000_000, 3_000_000_000])
    assert most == 1
    assert told == ["waits for memory: needs about 3.0 GB, 3.0 of 4.0 GB are in use by other actions"]
    assert list(tmp_path.iterdir()) == []


def test_an_action_alone_always_runs(tmp_path: Path) -> None:
    assert _run_together(tmp_path, [10**12], seconds=0) == (1, [])


def test_reservations_of_dead_processes_do_not_count(tmp_path: Path) -> None:
    pid, _, rest = unique_name().split(".", 2)
    (tmp_path / f"{pid}.1.{rest}.memory").write_text(json.dumps({"amount": 10**12, "worker": 0}))
    assert _run_together(tmp_path, [3_000_000_000], seconds=0) == (1, [])
    assert list(tmp_path.iterdir()) == []


def test_what_workers_hold_already_is_not_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDBUILD_MEMORY_GB")
    with reserved(tmp_path, 1000, lambda _: None, lambda: None) as reservation:
        reservation.running_as(os.getpid())
        (note,) = tmp_path.glob("*.memory")
        assert json.loads(note.read_text()) == {"amount": 1000, "worker": os.getpid()}
    assert memory_budget(10**9) - memory_budget(0) == pytest.approx(0.8e9, rel=0.5)


def test_the_default_budget_is_most_of_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDBUILD_MEMORY_GB")
    assert 0 < memory_budget() < available_memory() * 1.2
    assert usage_of(os.getpid()).anonymous > 1_000_000
    assert usage_of(999_999_999).anonymous == 0


@pytest.mark.parametrize("text", ["lots", "0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SDBUILD_MEMORY_GB", text)
    with pytest.raises(ExecuteError, match="SDBUILD_MEMORY_GB"):
        memory_budget()
