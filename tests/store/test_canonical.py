"""Key documents: one meaning, one byte string, one key."""

import json
import random
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.store import StoreError, canonical_json, key_of

_scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_documents = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.recursive(
        _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé😀"), inner, max_size=3)
    ),
    max_size=4,
)


def _shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, _shuffled(item, order)) for name, item in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return tuple(_shuffled(item, order) for item in value)
    return value


@settings(deadline=None)  # a busy machine is no failure
@given(_documents, st.randoms(use_true_random=False))
def test_order_and_kind_of_sequence_do_not_matter(document: dict[str, Any], order: random.Random) -> None:
    assert canonical_json(_shuffled(document, order)) == canonical_json(document)


@settings(deadline=None)  # a busy machine is no failure
@given(_documents)
def test_the_bytes_say_the_document(document: dict[str, Any]) -> None:
    data = canonical_json(document)
    assert json.loads(data) == document
    assert canonical_json(json.loads(data)) == data


@settings(deadline=None)  # a busy machine is no failure
@given(_documents, _documents)
def test_different_documents_have_different_keys(first: dict[str, Any], second: dict[str, Any]) -> None:
    # Compared as text: Python holds True and 1 for equal, JSON does not.
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (key_of(first) == key_of(second)) == same


def test_golden_keys() -> None:
    assert key_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    document = {
        "format": 1,
        "stage": "quantize",
        "stage_version": 3,
        "parameters": {"bits": 6, "skip": ["embedding"], "weight_threshold": None},
        "inputs": {"model": "0" * 64},
        "tools": {"coremltools": "9.0", "numpy": "2.3.5"},
    }
    assert key_of(document) == "c2571b208e9356bd246df70ddfee312ef2bc9aab69649ea0de333e974de62325"


def test_whole_floats_are_integers_and_enumerations_are_their_values() -> None:
    class Colour(StrEnum):
        RED = "red"

    assert canonical_json({"a": 2.0, "b": Colour.RED, "c": -0.0}) == b'{"a":2,"b":"red","c":0}'


@pytest.mark.parametrize("value", [0.1, float("nan"), float("inf"), 1e300, {1, 2}, b"bytes", object()])
def test_what_can_be_written_in_two_ways_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(StoreError, match=r"\$\.parameters\.x\[1\]"):
        key_of({"parameters": {"x": [0, value]}})


def test_keys_that_are_no_strings_and_broken_unicode_are_refused() -> None:
    with pytest.raises(StoreError, match="keys are strings"):
        canonical_json({1: "a"})
    with pytest.raises(StoreError, match="not valid Unicode"):
        canonical_json({"a": "\ud800"})
