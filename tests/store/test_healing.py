"""Records that are not what they should be count for nothing and are written anew, whatever stands in their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbuild.store import ActionResult, Store, key_of

DOCUMENT = {"stage": "quantize", "parameters": {"bits": 8}, "inputs": {"package": "a" * 64}}
OTHER = {"stage": "quantize", "parameters": {"bits": None}, "inputs": {"package": "a" * 64}}
KEY = key_of(DOCUMENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def record(store: Store, document: dict[str, Any] = DOCUMENT, content: str = "x") -> ActionResult:
    out = store.scratch()
    (out / "file").write_text(content)
    tree = store.put_tree(out)
    result = ActionResult(tree.digest, 1.0, 1, 1, "log", "now", {"outputs": {"a": {"signal_db": 61.5}}})
    store.record(key_of(document), document, result)
    return result


def as_folder(path: Path) -> None:
    path.unlink()
    (path / "within").mkdir(parents=True)


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


RESULTS: dict[str, Callable[[Path], Any]] = {
    "a folder": as_folder,
    "empty": lambda path: path.write_text(""),
    "half": lambda path: path.write_text(path.read_text()[:50]),
    "a list": lambda path: path.write_text("[]"),
    "no tree": rewritten(tree=None),
    "a number for a tree": rewritten(tree=7),
    "a path for a tree": rewritten(tree="../../x"),
    "a text for seconds": rewritten(seconds="long"),
    "a field more": rewritten(more=1),
    "of another key": rewritten(key="0" * 64),
    "deep": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "not a number": lambda path: path.write_text(path.read_text().replace("1.0", "NaN")),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_result_is_none_and_is_healed(store: Store, name: str) -> None:
    result = record(store)
    RESULTS[name](store.layout.result(KEY))
    assert store.recorded(KEY) is None
    assert store.lookup(KEY) is None
    assert record(store) == result
    assert store.lookup(KEY) == result


def test_a_result_that_was_copied_to_another_key_is_none_of_it(store: Store) -> None:
    record(store)
    record(store, OTHER, "unquantized")
    store.layout.result(KEY).write_bytes(store.layout.result(key_of(OTHER)).read_bytes())
    assert store.lookup(KEY) is None


@pytest.mark.parametrize("text", ['{"a": 0.5}', '{"a": 1e400}', "7", "[]", '{"a": "\\ud800"}'])
def test_a_key_file_that_is_no_key_document_is_none_and_is_healed(store: Store, text: str) -> None:
    record(store)
    store.layout.document(KEY).write_text(text)
    assert store.document(KEY) is None
    record(store)
    assert store.document(KEY) == DOCUMENT


@pytest.mark.parametrize("kind", ["tree", "blob", "document", "slot", "history"])
def test_a_folder_where_a_file_belongs_is_healed(store: Store, kind: str) -> None:
    result = record(store)
    store.slot_write("phone/quantize:unet", KEY)
    tree = store.load_tree(result.tree)
    assert tree is not None
    path = {
        "tree": store.layout.tree(result.tree),
        "blob": store.layout.blob(tree.entries[0].sha256),
        "document": store.layout.document(KEY),
        "slot": store.layout.slot("phone/quantize:unet"),
        "history": store.layout.history("quantize:unet"),
    }[kind]
    if path.exists():
        path.parent.chmod(0o755)
        path.unlink()
    (path / "within").mkdir(parents=True)
    again = Store(store.root)
    record(again)
    again.slot_write("phone/quantize:unet", KEY)
    again.record(KEY, DOCUMENT, result, name="quantize:unet")
    assert path.is_file()
    assert again.lookup(KEY) == result
    assert again.verify() == []
