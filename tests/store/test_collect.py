"""Collection removes what nobody needs and nothing else."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sdbuild.store import ActionResult, Retention, Store, key_of

Filler = Callable[[str, Mapping[str, bytes]], Path]


def _action(
    store: Store, fill: Filler, name: str, files: Mapping[str, bytes], inputs: Mapping[str, str] | None = None
) -> tuple[str, str]:
    tree = store.put_tree(fill(name, files)).digest
    document = {"stage": name, "inputs": dict(inputs or {})}
    result = ActionResult(tree, 1.0, 1, 1, "logs/x.log", "2025-01-01T00:00:00+00:00")
    store.record(key_of(document), document, result)
    return key_of(document), tree


def _used(store: Store, key: str, days_ago: float) -> None:
    moment = time.time() - days_ago * 24 * 3600
    os.utime(store.layout.result(key), (moment, moment))


def test_what_stands_for_a_task_keeps_what_it_needs(store: Store, fill: Filler) -> None:
    kept, kept_tree = _action(store, fill, "kept", {"shared": b"shared", "own": b"own"})
    lost, lost_tree = _action(store, fill, "lost", {"shared": b"shared", "big": b"b" * 1000})
    store.slot_write("recipe/kept", kept)
    collected = store.gc(grace_seconds=-1)
    assert (collected.blobs, collected.trees, collected.actions) == (1, 1, 1)
    assert collected.bytes > 1000
    assert store.lookup(kept) is not None
    assert store.has_tree(kept_tree)
    assert store.lookup(lost) is None
    assert store.load_tree(lost_tree) is None
    assert store.gc(grace_seconds=-1).blobs == 0


def test_what_is_young_stays(store: Store, fill: Filler) -> None:
    key, _ = _action(store, fill, "young", {"a": b"a"})
    assert store.gc(Retention(max_bytes=0, max_age_seconds=0)).bytes == 0
    assert store.lookup(key) is not None


def test_an_old_result_that_is_made_again_is_young(store: Store, fill: Filler) -> None:
    """Its bytes are the old ones: the tree is renewed before the action that names it is recorded."""
    _, tree = _action(store, fill, "old", {"a": b"a"})
    blob = next(store.root.glob("blobs/*/*"))
    assert store.garbage(grace_seconds=-1).blobs == (blob,)
    time.sleep(0.1)
    before = time.time()
    time.sleep(0.1)
    assert store.put_tree(fill("again", {"a": b"a"})).digest == tree
    assert store.garbage(grace_seconds=time.time() - before).blobs == ()


def test_the_least_recently_used_go_until_the_rest_fits(store: Store, fill: Filler) -> None:
    names = ("first", "second", "third")
    keys = [_action(store, fill, name, {"own": name.encode() * 10_000, "shared": b"s" * 30_000})[0] for name in names]
    for key, days in zip(keys, (3, 1, 2), strict=True):
        store.slot_write(f"recipe/{key[:4]}", key)
        _used(store, key, days)
    whole = store.sizes().bytes
    garbage = store.garbage(Retention(max_bytes=whole - 1), grace_seconds=-1)
    assert [(drop.result.key, drop.bytes) for drop in garbage.dropped] == [(keys[0], 50_000)]
    assert garbage.remaining <= whole - 50_000
    store.gc(Retention(max_bytes=whole - 60_000), grace_seconds=-1)
    assert [store.lookup(key) is not None for key in keys] == [False, True, False]
    assert store.sizes().bytes <= whole - 60_000
    (drop,) = store.garbage(Retention(max_bytes=0), grace_seconds=-1).dropped
    assert drop.bytes == 90_000, "with the last one goes what all of them shared"


def test_what_was_not_used_for_long_goes_whether_or_not_it_stands_for_a_task(store: Store, fill: Filler) -> None:
    named, _ = _action(store, fill, "named", {"a": b"a"})
    superseded, _ = _action(store, fill, "superseded", {"b": b"b"})
    store.slot_write("recipe/named", named)
    _used(store, named, 31)
    _used(store, superseded, 29)
    month = Retention(max_age_seconds=30 * 24 * 3600)
    assert [drop.result.title for drop in store.garbage(month, grace_seconds=-1).dropped] == ["recipe/named"]
    store.slot_write("recipe/named", named)  # as a build does that finds it
    assert store.garbage(month, grace_seconds=-1).dropped == ()


def test_looking_for_garbage_changes_nothing(store: Store, fill: Filler) -> None:
    _action(store, fill, "one", {"a": b"a"})
    before = {path: path.lstat().st_ctime_ns for path in store.root.rglob("*")}
    garbage = Store(store.root, read_only=True).garbage(grace_seconds=-1)
    assert garbage.bytes == store.gc(grace_seconds=3600).bytes or garbage.blobs
    assert {path: path.lstat().st_ctime_ns for path in store.root.rglob("*")} == before


def test_what_is_read_in_place_stays_while_an_action_that_read_it_does(store: Store, fill: Filler) -> None:
    file = fill("checkpoint", {"model": b"model"}) / "model"
    source = store.reference_tree({"model": file}).digest
    key, _ = _action(store, fill, "convert", {"a": b"a"}, {"checkpoint": source})
    store.slot_write("recipe/convert", key)
    store.gc(grace_seconds=-1)
    assert store.has_tree(source)
    store.gc(Retention(max_bytes=0), grace_seconds=-1)
    assert not store.has_tree(source)


def test_bytes_that_a_bundle_is_linked_to_are_told(
    store: Store, fill: Filler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdbuild.store.files._reflink", lambda source, destination: False, raising=True)
    _, tree = _action(store, fill, "bundle", {"a": b"a" * 1000})
    store.materialise(tree, tmp_path / "out")
    collected = store.gc(grace_seconds=-1)
    assert collected.linked_bytes == 1000
    assert (tmp_path / "out" / "a").read_bytes() == b"a" * 1000


def test_damaged_blobs_and_references_go(store: Store, fill: Filler) -> None:
    file = fill("checkpoint", {"model": b"model"}) / "model"
    reference = store.reference_tree({"model": file})
    _, tree = _action(store, fill, "damaged", {"a": b"aa"})
    located = store.locate(tree)
    assert located is not None
    located["a"].chmod(0o644)
    located["a"].write_bytes(b"bb")
    assert not store.has_tree(tree)
    assert store.sizes().corrupt_bytes == 2
    store.gc(grace_seconds=-1)
    sizes = store.sizes()
    assert (sizes.blobs, sizes.trees, sizes.actions, sizes.referenced, sizes.corrupt_bytes) == (0, 0, 0, 0, 0)
    assert not store.has_tree(reference.digest)
    assert file.read_bytes() == b"model"


def test_sizes_count_each_kind(store: Store, fill: Filler) -> None:
    _action(store, fill, "one", {"a": b"a" * 10, "b": b"b" * 20, "c": b"a" * 10})
    (store.scratch() / "unfinished").write_bytes(b"x" * 7)
    sizes = store.sizes()
    assert (sizes.blobs, sizes.blob_bytes, sizes.trees, sizes.actions) == (2, 30, 1, 1)
    assert sizes.scratch_bytes == 7
    assert sizes.bytes == 37 + sizes.record_bytes
    assert (
        sizes.record_bytes
        == sum(path.stat().st_size for name in ("trees", "actions") for path in (store.root / name).rglob("*.json"))
        + store.layout.stats.stat().st_size
    )
