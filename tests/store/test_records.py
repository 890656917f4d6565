"""Results beside key documents; tasks and the runs before."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sdbuild.store import ActionResult, Store, StoreError, key_of

Filler = Callable[[str, Mapping[str, bytes]], Path]


def _document(bits: int, model: str = "a") -> dict[str, Any]:
    return {
        "stage": "quantize",
        "parameters": {"bits": bits},
        "inputs": {"model": model * 64},
        "tools": {"numpy": "2.3"},
    }


def _result(tree: str, seconds: float = 1.5) -> ActionResult:
    return ActionResult(tree, seconds, 2_000, 1_000, "logs/quantize-unet.log", "2025-01-01T00:00:00+00:00")


def _record(store: Store, fill: Filler, document: dict[str, Any], seconds: float = 1.5) -> ActionResult:
    tree = store.put_tree(fill("out", {"model": json.dumps(document).encode()}))
    result = _result(tree.digest, seconds)
    store.record(key_of(document), document, result, name="quantize:unet")
    return result


def test_a_result_is_found_while_its_output_is_whole(store: Store, fill: Filler) -> None:
    document = _document(6)
    assert store.lookup(key_of(document)) is None
    result = _record(store, fill, document)
    assert Store(store.root).lookup(key_of(document)) == result
    assert store.document(key_of(document)) == document
    located = store.locate(result.tree)
    assert located is not None
    located["model"].unlink()
    assert store.lookup(key_of(document)) is None
    assert store.recorded(key_of(document)) == result
    assert store.document(key_of(document)) == document


def test_a_forgotten_action_runs_again(store: Store, fill: Filler) -> None:
    document = _document(6)
    result = _record(store, fill, document)
    store.slot_write("sd15/quantize:unet", key_of(document))
    store.forget(key_of(document))
    assert store.lookup(key_of(document)) is None
    assert store.has_tree(result.tree)
    assert store.slot_read("sd15/quantize:unet") == document


def test_a_key_has_to_be_that_of_its_document(store: Store) -> None:
    with pytest.raises(StoreError, match="key_of"):
        store.record("0" * 64, _document(6), _result("0" * 64))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tree": "x"}', "null"])
def test_a_damaged_record_is_none(store: Store, fill: Filler, text: str) -> None:
    document = _document(6)
    _record(store, fill, document)
    store.slot_write("slot", key_of(document))
    for path in (store.layout.result(key_of(document)), store.layout.document(key_of(document))):
        path.write_text(text)
    store.layout.slot("slot").write_text(text)
    store.layout.history("quantize:unet").write_text(text)
    assert store.lookup(key_of(document)) is None
    assert store.document(key_of(document)) is None
    assert store.slot_read("slot") is None
    assert store.slots() == {}
    assert list(store.history("quantize:unet")) == []


def test_a_document_that_was_changed_is_none(store: Store, fill: Filler) -> None:
    document = _document(6)
    _record(store, fill, document)
    store.layout.document(key_of(document)).write_text(json.dumps(_document(4)))
    assert store.document(key_of(document)) is None


def test_a_task_remembers_its_last_action(store: Store, fill: Filler) -> None:
    first, second = _document(6), _document(4)
    for document in (first, second):
        _record(store, fill, document)
    slot = "sd15 ios/quantize:unet"
    assert store.slot_read(slot) is None
    store.slot_write(slot, key_of(first))
    assert store.slot_read(slot) == first
    store.slot_write(slot, key_of(second))
    assert store.slot_read(slot) == second
    assert store.slots() == {slot: key_of(second)}
    with pytest.raises(StoreError, match="too long"):
        store.slot_write("x" * 300, key_of(second))


def test_earlier_runs_are_told_newest_first(store: Store, fill: Filler) -> None:
    small, large = _document(6, "a"), _document(6, "b")
    _record(store, fill, small, seconds=1.0)
    _record(store, fill, large, seconds=100.0)
    assert list(store.history("quantize:vae")) == []
    assert [(document, result.seconds) for document, result in store.history("quantize:unet")] == [
        (large, 100.0),
        (small, 1.0),
    ]
    assert store.histories() == ["quantize:unet"]
    _, result = next(iter(store.history("quantize:unet")))
    assert result.memory == 1_000
    assert dataclasses.replace(result, peak_anonymous=0).memory == 2_000


def test_history_is_short(store: Store, fill: Filler) -> None:
    for bits in range(20):
        _record(store, fill, _document(bits))
    assert len(json.loads(store.layout.history("quantize:unet").read_text())) == 16
