"""SIGKILL at any moment leaves the old state or the new one."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from sdbuild.store import Store

_LOOP = """
import itertools, os, sys
from pathlib import Path
from sdbuild.store import ActionResult, Store, key_of
root = Path(sys.argv[1])
store = Store(root / "cache")
for number in itertools.count(int(sys.argv[2])):
    directory = store.scratch() / "out"
    directory.mkdir()
    for name in range(6):
        (directory / f"{name}").write_bytes(f"{number // 2} {name} ".encode() * 20000)
    tree = store.put_tree(directory)
    document = {"number": number}
    result = ActionResult(tree.digest, 1.0, 1, 1, "log", "now")
    store.record(key_of(document), document, result, name="loop")
    store.slot_write("recipe/loop", key_of(document))
    store.materialise(tree.digest, root / "build" / "Resources")
    print(number, flush=True)
"""


def _check(root: Path) -> int:
    """Everything that counts as an artifact is one, by reading every byte; the number of recorded actions."""
    cache = root / "cache"
    for blob in (cache / "blobs").rglob("*"):
        if blob.is_file():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    store = Store(cache)
    trees = set()
    for path in (cache / "actions").rglob("*.result.json"):
        key = path.name.split(".")[0]
        result = store.lookup(key)
        assert result is not None
        assert store.document(key) is not None
        trees.add(result.tree)
    output = root / "build" / "Resources"
    if output.exists():
        assert any(store.matches(tree, output) for tree in trees)
    if store.slots():
        assert store.slot_read("recipe/loop") is not None
    store.prepare()
    assert list(store.layout.scratch.iterdir()) == []
    assert list((cache / "corrupt").glob("*")) == []
    return len(list((cache / "actions").rglob("*.result.json")))


def test_kills_at_random_moments(tmp_path: Path) -> None:
    order = random.Random(20240229)
    number, actions = 0, 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        assert process.stdout is not None
        number = int(process.stdout.readline()) + 1
        time.sleep(order.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        printed = process.stdout.read().split()
        process.wait()
        number = int(printed[-1]) + 1 if printed else number
        recorded = _check(tmp_path)
        assert recorded >= max(actions, number)
        actions = recorded
    assert len(json.loads((tmp_path / "cache/history/loop").read_text())) == min(16, actions)
    leftovers = [path.name for path in (tmp_path / "build").iterdir() if path.name != "Resources"]
    store = Store(tmp_path / "cache")
    _, result = next(store.history("loop"))
    store.materialise(result.tree, tmp_path / "build" / "Resources")
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["Resources"], leftovers


def test_processes_share_a_store_without_locks(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(tmp_path), "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        for _ in range(3)
    ]
    time.sleep(1.5)
    assert [process.poll() for process in processes] == [None, None, None], processes[0].stderr
    for process in processes:
        process.kill()
        process.communicate()
    _check(tmp_path)
