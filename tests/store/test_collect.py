"""Collection removes what nobody needs and nothing else."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sdbuild.store import ActionResult, Store, key_of

Filler = Callable[[str, Mapping[str, bytes]], Path]


def _action(store: Store, fill: Filler, name: str, files: Mapping[str, bytes]) -> tuple[str, str]:
    tree = store.put_tree(fill(name, files)).digest
    document = {"stage": name}
    result = ActionResult(tree, 1.0, 1, 1, "logs/x.log", "2025-01-01T00:00:00+00:00")
    store.record(key_of(document), document, result)
    return key_of(document), tree


def test_kept_actions_keep_what_they_need(store: Store, fill: Filler) -> None:
    kept, kept_tree = _action(store, fill, "kept", {"shared": b"shared", "own": b"own"})
    lost, lost_tree = _action(store, fill, "lost", {"shared": b"shared", "big": b"b" * 1000})
    collected = store.gc([kept], grace_seconds=-1)
    assert (collected.blobs, collected.trees, collected.actions) == (1, 1, 1)
    assert collected.bytes > 1000
    assert store.lookup(kept) is not None
    assert store.has_tree(kept_tree)
    assert store.lookup(lost) is None
    assert store.load_tree(lost_tree) is None
    assert store.gc([kept], grace_seconds=-1).blobs == 0


def test_what_is_young_stays(store: Store, fill: Filler) -> None:
    key, _ = _action(store, fill, "young", {"a": b"a"})
    assert store.gc([]).bytes == 0
    assert store.lookup(key) is not None


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
    store.gc([], grace_seconds=-1)
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
