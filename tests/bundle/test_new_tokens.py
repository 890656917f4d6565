"""New tokens by merges alone: each is read as one token, and nothing else is read otherwise than before."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.builtin.shapes import CHECKPOINT
from sdbuild.builtin.tiny import tokenizer
from sdbuild.bundle.byte_pairs import WORD_END, BytePairs
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.new_tokens import NewTokens, Token, Vector

SHAPES = CHECKPOINT / "tokenizer"
TOKENIZERS = {
    "tiny": tokenizer.files(),
    "shapes": (json.loads((SHAPES / "vocab.json").read_bytes()), (SHAPES / "merges.txt").read_text(encoding="utf-8")),
}
EMBEDDINGS = {
    "<cat-toy>": 3,
    "easynegative": 2,
    "<cat-house>": 1,
    "aa-aa-ab": 2,
    "<cat": 1,
    "v2": 1,
    "a_1b": 12,
    "<light": 2,
}


@cache
def extended(name: str, *texts: str) -> tuple[NewTokens, dict[str, Token], BytePairs]:
    vocabulary, merges = TOKENIZERS[name]
    made = NewTokens(vocabulary, merges)
    tokens = {text: made.add(text, text, EMBEDDINGS[text]) for text in texts or EMBEDDINGS}
    after = BytePairs(merges + "".join(f"{first} {second}\n" for first, second in made.merges))
    return made, tokens, after


def ids(pairs: BytePairs, vocabulary: dict[str, int], text: str) -> list[int]:
    return [vocabulary[token] for token in pairs.encode(text)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_token_is_read_as_one_with_its_vector(name: str) -> None:
    made, tokens, after = extended(name)
    for text, token in tokens.items():
        assert len(token.names) == EMBEDDINGS[text]
        for number, written in enumerate(token.names):
            assert after.encode(written) == [written + WORD_END]
            assert made.rows[written + WORD_END] == Vector(text, number)
            assert made.rows[written] == Vector(text, number)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_vocabulary_stays_whole(name: str) -> None:
    made, _, _ = extended(name)
    before = TOKENIZERS[name][0]
    after = made.vocabulary
    assert sorted(after.values()) == list(range(len(after)))
    assert before.items() <= after.items()
    for first, second in made.merges:
        assert {first, second, first + second} <= after.keys()
        assert not first.startswith("#")
        assert not first.endswith(WORD_END)


def test_what_follows_a_token_is_a_token_of_its_own() -> None:
    made, _, after = extended("tiny", "easynegative", "<cat-toy>")
    for text in ("easynegative", "<cat-toy>"):
        assert after.encode(f"a {text}, red")[:3] == ["a</w>", text, ",</w>"]
    assert made.rows["<cat-toy>"] == Vector("<cat-toy>", 0)


def test_capitals_are_as_the_swift_package_sees_them() -> None:
    made = NewTokens(*TOKENIZERS["tiny"])
    assert made.add("x", "EasyNegative", 1).text == "easynegative"
    assert "easynegative</w>" in made.rows


LETTERS = st.text("abcdehinoprtvy<>-_,.12 ", max_size=24)
WORDS = st.lists(st.sampled_from([*"acv", "photo", "the", "cat", "toy", "easy", "<cat", "-toy>", "art,"]), max_size=8)
PARTS = st.lists(
    st.sampled_from(["<", "cat", "-", "toy", ">", "_", "1", "easy", "aa", "ab", "v", "2", " "]), max_size=9
)
PROMPTS = st.one_of(LETTERS, WORDS.map(" ".join), PARTS.map("".join))


@given(PROMPTS, st.sampled_from(sorted(TOKENIZERS)))
def test_no_other_prompt_is_read_otherwise(prompt: str, name: str) -> None:
    made, tokens, after = extended(name)
    vocabulary, merges = TOKENIZERS[name]
    words = prompt.split(" ")
    changed = [text for token in tokens.values() for text in (token.text, *token.changes)]
    words = [word for word in words if not any(text in word for text in changed)]
    kept = " ".join(words)
    assert ids(after, made.vocabulary, kept) == ids(BytePairs(merges), vocabulary, kept)


@given(PROMPTS, st.sampled_from(sorted(TOKENIZERS)))
def test_every_prompt_ends_at_entries_of_the_vocabulary(prompt: str, name: str) -> None:
    made, _, after = extended(name)
    assert set(after.encode(prompt)) <= made.vocabulary.keys()


def test_of_two_pieces_nothing_else_is_changed() -> None:
    made = NewTokens(*TOKENIZERS["tiny"])
    vocabulary = TOKENIZERS["tiny"][0]
    assert BytePairs(TOKENIZERS["tiny"][1]).encode("<light") == ["<", "light</w>"]
    assert made.add("x", "<light", 1).changes == ()
    # A token of many pieces has entries on the way: each has the vector of its longest piece.
    assert made.add("y", "<cat-horse>", 2).changes == ("<c",)
    assert made.rows["<c"] == vocabulary["c"]
    assert made.rows["<cat-"] == vocabulary["at"]
    assert made.rows["<cat-hor"] == vocabulary["hor"]
    assert made.rows["<cat-horse>_"] == Vector("y", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "vocabulary has cat already"),
        ("CAT", "vocabulary has cat already"),
        ("<taken>", "<taken> is the token of first too"),
        ("<taken>_1", "<taken>_1 is the token of first too"),
        ("<☃>", "the tokenizer has no ☃"),
    ],
)
def test_tokens_that_cannot_be(text: str, message: str) -> None:
    made = NewTokens(*TOKENIZERS["tiny"])
    made.add("first", "<taken>", 2)
    with pytest.raises(BundleError, match=message):
        made.add("second", text, 1)
