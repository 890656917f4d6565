"""Prompts as the Swift package reads them: 300 awkward ones, kept as ids that a second reading of its rules gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.builtin.tiny import tokenizer, unigram
from sdbuild.bundle.swift_strings import characters
from sdbuild.pipeline import PipelineError
from sdbuild.pipeline.clients.swift.prompts import SwiftReader
from sdbuild.pipeline.clients.swift.t5 import T5Tokenizer
from tests.pipeline.swift import golden, reader

END = 831
GOLDEN = json.loads(golden.PATH.read_bytes())


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resources")
    vocabulary, merges = tokenizer.files()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(golden.t5_tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps(unigram.files()["tokenizer_config.json"]))
    return folder


@pytest.fixture(scope="module")
def ours(resources: Path) -> SwiftReader:
    return SwiftReader(resources)


def test_there_are_300_prompts_of_every_kind() -> None:
    assert [entry["prompt"] for entry in GOLDEN] == golden.prompts()
    first = "".join(entry["prompt"] for entry in GOLDEN[:60])
    assert len(GOLDEN) == 300
    for kind in ("\u2764\ufe0f", "\u732b", "e\u0301", "\u201c", "1", "\n", "\r\n", "ASTRONAUT", "word " * 200):
        assert kind in first


@pytest.mark.parametrize("entry", GOLDEN, ids=range(300))
def test_both_readings_agree(ours: SwiftReader, entry: dict[str, Any]) -> None:
    clip, t5 = reader.Clip(*tokenizer.files()), reader.T5(golden.t5_tokenizer())
    prompt = entry["prompt"]
    for found in (ours.clip(prompt, golden.LENGTH, "TextEncoder").ids[0].tolist(), clip.read(prompt, golden.LENGTH)):
        assert golden.shortened(found) == entry["clip"]
    for found in (ours.t5(prompt, golden.LENGTH).ids[0].tolist(), t5.read(prompt, golden.LENGTH)):
        assert golden.shortened(found) == entry["t5"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_characters_are_those_of_the_standard(text: str) -> None:
    assert [reader.same(letter) for letter in characters(text)] == [
        reader.same(letter) for letter in reader.characters(text)
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([*golden.PIECES, *golden.JOINTS]), max_size=12).map("".join))
def test_any_prompt_is_read_alike(resources: Path, text: str) -> None:
    clip = reader.Clip(*tokenizer.files())
    assert SwiftReader(resources).clip(text, 77, "TextEncoder2").ids[0].tolist() == clip.read(text, 77, "!")


def test_what_is_cut_and_what_is_not_known(ours: SwiftReader) -> None:
    fits = ours.clip("a " * 75, 77, "TextEncoder")
    assert fits.ids[0, -1] == END
    assert fits.remarks == ()
    cut = ours.clip("a " * 75 + "red fox", 77, "TextEncoder")
    assert END not in cut.ids, "the end is lost with the rest"
    assert cut.remarks == (
        "TextEncoder takes 77 tokens; this end of the text was left out: 'd fox', and the token that ends it",
    )
    exactly = ours.clip("a " * 76, 77, "TextEncoder")
    assert exactly.remarks == (
        "TextEncoder takes 77 tokens; this end of the text was left out: the token that ends it",
    )
    strange = ours.clip("a \u2764\ufe0f fox", 8, "TextEncoder")
    assert strange.ids[0].tolist() == [830, 320, END, 754, END, END, END, END]
    assert strange.remarks == (
        "the vocabulary has no '\u2764\ufe0f'; the Swift package reads each of them as the end of the text",
    )


def test_each_encoder_has_its_padding(ours: SwiftReader) -> None:
    assert ours.clip("", 4, "TextEncoder").ids.tolist() == [[830, 831, 831, 831]]
    assert ours.clip("", 4, "TextEncoder2").ids.tolist() == [[830, 831, 0, 0]]


def test_inversions_of_several_vectors_are_written_out_as_an_app_does(resources: Path) -> None:
    read = SwiftReader(resources, [{"token": "<toy>", "tokens": ["<toy>", "<toy>_1"]}]).clip
    written = read("a <toy> <toy>_1, on mars", 77, "TextEncoder").ids
    np.testing.assert_array_equal(read("a <toy>, on mars", 77, "TextEncoder").ids, written)
    assert not np.array_equal(SwiftReader(resources).clip("a <toy>, on mars", 77, "TextEncoder").ids, written)


def test_t5s_mask_is_on_the_padding_and_never_on_the_first(ours: SwiftReader) -> None:
    found = ours.t5("a photo", 5)
    assert found.ids.tolist() == [[98, 182, 1, 0, 0]]
    assert found.mask.tolist() == [[0, 0, 0, 1, 1]]
    (remark,) = ours.t5("a photo of a fox", 5).remarks
    assert "left out: 'fox'" in remark


def test_t5s_words_have_no_starts_where_the_older_name_is_missing() -> None:
    """The fault of files by newer converters: `prepend_scheme` alone is not read."""
    whole = golden.t5_tokenizer()
    assert T5Tokenizer(whole, {}).tokenize("a photo") == ["\u2581a", "\u2581photo"]
    (_, metaspace) = whole["pre_tokenizer"]["pretokenizers"]
    for changed in ({"add_prefix_space": False}, {"prepend_scheme": "never"}):
        split = {"type": "WhitespaceSplit"}
        sequence = {"type": "Sequence", "pretokenizers": [split, metaspace | changed]}
        assert T5Tokenizer(whole | {"pre_tokenizer": sequence}, {}).tokenize("a photo") == [*"aphoto"]


@pytest.mark.parametrize(
    ("changes", "text", "pieces"),
    [
        # A metaspace alone starts a word in a text without any; swift-transformers splits nothing off an empty one.
        ({"pre_tokenizer": None}, "a photo", ["a", " ", "p", "h", "o", "t", "o"]),
        ({"normalizer": {"type": "Lowercase"}}, "A Photo", ["\u2581a", "\u2581photo"]),
        ({"normalizer": {"type": "Prepend", "prepend": "a "}}, "photo", ["\u2581a", "\u2581photo"]),
        (
            {"normalizer": {"type": "Replace", "pattern": {"String": "_"}, "content": " "}},
            "a_photo",
            ["\u2581a", "\u2581photo"],
        ),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}},
            "\uff21",
            ["\u2581a"],
        ),
    ],
)
def test_other_kinds_of_files(changes: dict[str, Any], text: str, pieces: list[str]) -> None:
    assert T5Tokenizer(golden.t5_tokenizer() | changes, {}).tokenize(text) == pieces


def test_an_empty_text_is_a_word_where_only_a_metaspace_cuts() -> None:
    (_, metaspace) = golden.t5_tokenizer()["pre_tokenizer"]["pretokenizers"]
    assert T5Tokenizer(golden.t5_tokenizer() | {"pre_tokenizer": metaspace}, {}).tokenize("") == ["\u2581"]


def test_added_tokens_are_cut_off_by_their_offset_in_utf_16() -> None:
    added = [{"id": 0, "content": "<pad>"}]
    read = T5Tokenizer(golden.t5_tokenizer() | {"added_tokens": added}, {}).tokenize
    assert read("a <pad> fox") == ["\u2581a", "<pad>", "\u2581fox"]
    assert read("\U0001f98a <pad> fox") == ["\u2581", "\U0001f98a", "\u2581", "<", "<pad>", "\u2581fox"]
    with pytest.raises(PipelineError, match="stops at '<pad>' behind such characters as emoji"):
        read("\U0001f98a <pad>")


def test_a_file_at_which_swift_transformers_stops() -> None:
    whole = golden.t5_tokenizer() | {"normalizer": {"type": "Strip", "strip_left": False, "strip_right": True}}
    with pytest.raises(PipelineError, match="no normalizer Strip"):
        T5Tokenizer(whole, {}).tokenize("a")
    with pytest.raises(PipelineError, match="no unk_id"):
        T5Tokenizer(whole | {"model": whole["model"] | {"unk_id": None}}, {})


def test_where_the_rules_coincide_t5_is_read_as_by_its_own_library() -> None:
    from tokenizers import Tokenizer

    whole = golden.t5_tokenizer() | {"normalizer": None}
    theirs = Tokenizer.from_str(json.dumps(whole))
    for prompt in ("a photo of an astronaut riding a horse on mars", "oil painting, sharp focus", "fox  in the forest"):
        assert T5Tokenizer(whole, {}).tokenize(prompt) == theirs.encode(prompt, add_special_tokens=False).tokens
