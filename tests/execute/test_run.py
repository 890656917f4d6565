"""Running one action: its result, its cost, its log, and each way of failing."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.execute import ActionFailed, ActionSpec, run_action
from sdbuild.store import Store

MakeSpec = Callable[..., ActionSpec]


def _text(store: Store, tree: str, path: str) -> str:
    located = store.locate(tree)
    assert located is not None
    return located[path].read_text()


def _clean(store: Store) -> bool:
    return not list(store.layout.scratch.iterdir()) and not list(store.layout.locks.glob("*.memory"))


def test_an_action_runs_once(store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path) -> None:
    action = spec("write", text="one", count=str(tmp_path / "count"))
    result = run_action(store, action, reporter=recorder)
    assert _text(store, result.tree, "model/text") == "one"
    assert store.lookup(action.key) == result
    assert result.seconds > 0
    assert 1_000_000 < result.peak_anonymous <= result.peak_rss < 200_000_000
    assert "a line for the log" in (store.root / result.log).read_text()
    assert recorder.kinds() == ["started", "finished"]
    assert ("progress", "convert:unet", "written") in recorder.events
    assert run_action(store, action, reporter=recorder) == result
    assert (tmp_path / "count").read_text() == "ran\n"
    assert _clean(store)


def test_inputs_arrive_by_role(store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path) -> None:
    first = run_action(store, spec("write", text="first "), reporter=recorder)
    checkpoint = tmp_path / "text"
    checkpoint.write_text("referenced ")
    referenced = store.reference_tree({"text": checkpoint})
    assert store.materialise(first.tree, tmp_path / "out") is None
    flat = store.put_tree(tmp_path / "out" / "model", move=False)
    action = spec("write", inputs={"a": flat.digest, "b": referenced.digest}, text="last")
    result = run_action(store, action, reporter=recorder)
    assert _text(store, result.tree, "model/text") == "first referenced last"


def test_the_worker_is_a_fresh_process(
    store: Store, spec: MakeSpec, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    result = run_action(store, spec("environment"), reporter=recorder)
    threads, seed, temporary = _text(store, result.tree, "environment").split("\n")
    assert int(threads) >= 1
    assert seed == "0"
    assert Path(temporary).is_relative_to(store.layout.scratch)
    modules = _text(store, result.tree, "modules").split("\n")
    assert not {"torch", "numpy", "coremltools", "pytest"}.intersection(modules)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    result = run_action(store, spec("environment", again=1), reporter=recorder)
    assert _text(store, result.tree, "environment").startswith("7\n")


def test_peak_memory_is_the_workers_own(store: Store, spec: MakeSpec, recorder: Any) -> None:
    size = 150_000_000
    ours = bytearray(2 * size)
    for page in range(0, len(ours), 4096):
        ours[page] = 1
    action = spec("allocate", bytes=size)
    result = run_action(store, action, reporter=recorder)
    assert size < result.peak_anonymous < 1.5 * size
    assert size < result.peak_rss < 1.7 * size
    assert recorder.memory > size


def test_a_stages_own_error_is_shown_as_it_is(store: Store, spec: MakeSpec, recorder: Any) -> None:
    action = spec("refuse")
    with pytest.raises(ActionFailed) as caught:
        run_action(store, action, reporter=recorder)
    text = str(caught.value)
    assert text.startswith("convert:unet failed: tensor conv_in.weight holds NaN\n  use another checkpoint\n")
    assert "last step: reads the weights" in text
    assert str(caught.value.log) in text
    assert "WorkloadError" in caught.value.log.read_text()
    assert store.lookup(action.key) is None
    assert recorder.kinds() == ["started", "failed"]
    assert store.sizes().blobs == 0
    assert _clean(store)


@pytest.mark.parametrize(
    ("function", "params", "expected"),
    [
        ("crash", {"kind": "zero"}, ["ZeroDivisionError: by nought", "the log has the traceback"]),
        ("crash", {"kind": "memory"}, ["MemoryError", "GB were available", "smaller -n"]),
        ("crash", {"kind": "exit"}, ["SystemExit: by nought"]),
        (
            "die",
            {"signal": int(signal.SIGKILL)},
            ["lack of memory", "had reached 0.0 GB", "SDBUILD_MEMORY_GB", "lowers the"],
        ),
        ("die", {"signal": int(signal.SIGSEGV)}, ["ended by SIGSEGV", "last step: lowers the graph"]),
        ("die", {"signal": int(signal.SIGTERM)}, ["ended by SIGTERM"]),
        ("leave", {}, ["ended with status 0 before the stage was done"]),
        ("absent", {}, ["AttributeError", "absent"]),
    ],
)
def test_each_way_to_fail_says_what_to_do(
    store: Store, spec: MakeSpec, recorder: Any, function: str, params: dict[str, Any], expected: list[str]
) -> None:
    action = spec(function, **params)
    with pytest.raises(ActionFailed) as caught:
        run_action(store, action, reporter=recorder)
    for part in (*expected, str(caught.value.log)):
        assert part in str(caught.value)
    assert caught.value.log.exists()
    assert store.lookup(action.key) is None
    assert _clean(store)


def test_a_changed_input_spoils_the_result(store: Store, spec: MakeSpec, recorder: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text").write_text("good")
    tree = store.put_tree(tmp_path / "in")
    action = spec("tamper", inputs={"model": tree.digest})
    with pytest.raises(ActionFailed, match="input model \\(text\\) changed while it ran"):
        run_action(store, action, reporter=recorder)
    assert store.lookup(action.key) is None
    assert not store.has_tree(tree.digest)


def test_a_lost_output_is_made_again(store: Store, spec: MakeSpec, recorder: Any) -> None:
    action = spec("write", text="one")
    result = run_action(store, action, reporter=recorder)
    located = store.locate(result.tree)
    assert located is not None
    os.truncate(located["model/text"], 1)
    assert run_action(store, action, reporter=recorder).tree == result.tree
    assert _text(store, result.tree, "model/text") == "one"
    assert recorder.kinds() == ["started", "finished"] * 2
