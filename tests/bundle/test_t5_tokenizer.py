"""T5's tokenizer as it is bundled: the `tokenizers` library reads it as the original, the Swift package like both."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from sdbuild.builtin.tiny import unigram
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.t5_tokenizer import for_swift, write_t5_tokenizer

SPACE = "▁"
Json = dict[str, Any]


def prompts() -> list[str]:
    """Three hundred awkward texts: words of the vocabulary and others, every kind of white space, at both ends too."""
    words = [
        "a",
        "red",
        "apple",
        "Photograph",
        "of",
        "mars,",
        "naïve",
        "don't",
        "1024x1024",
        "🍎",
        "日本",
        "e\u0301",
        "▁a",
    ]
    spaces = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u200b", ", ", ""]
    chance = random.Random(0)
    made = ["", " ", "\n", " a", "a ", "a  ", "\ta\n", "a \n \n", "\u3000a\u3000", "</s>", "a </s> red"]
    while len(made) < 300:
        pieces = [chance.choice(spaces)]
        for _ in range(chance.randrange(1, 7)):
            pieces += [chance.choice(words), chance.choice(spaces)]
        made.append("".join(pieces))
    return made


def whole(pre_tokenizer: Json | None, normalizer: Json | None = None) -> Json:
    return unigram.files()["tokenizer.json"] | {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}


def metaspace(**said: Any) -> Json:
    return {"type": "Metaspace", "replacement": SPACE, **said}


def sequence(*parts: Json, word: str = "pretokenizers") -> Json:
    return {"type": "Sequence", word: list(parts)}


WHITESPACE = {"type": "WhitespaceSplit"}
NEWER = metaspace(prepend_scheme="always", split=True)
STRIP_RIGHT = {"type": "Strip", "strip_left": False, "strip_right": True}
STRIP_BOTH = {"type": "Strip", "strip_left": True, "strip_right": True}
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": SPACE}
DOCUMENTS = {
    "newer": whole(sequence(WHITESPACE, NEWER)),
    "alone": whole(NEWER),
    "first": whole(metaspace(prepend_scheme="first", split=True)),
    "never": whole(metaspace(prepend_scheme="never", split=True)),
    "older": whole(sequence(WHITESPACE, metaspace(add_prefix_space=True))),
    "older, no prefix": whole(metaspace(add_prefix_space=False, prepend_scheme="never")),
    "nothing said": whole(metaspace()),
    # As transformers writes a SentencePiece model of T5 down.
    "stripped": whole(NEWER, sequence(STRIP_RIGHT, SPACES, word="normalizers")),
    "stripped on both sides": whole(NEWER, STRIP_BOTH),
    "no parts": whole(None),
}


def read(document: Json) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(document))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_library_reads_what_is_bundled_as_the_original(name: str) -> None:
    original, bundled = read(DOCUMENTS[name]), read(for_swift(DOCUMENTS[name]))
    for prompt in prompts():
        assert bundled.encode(prompt).ids == original.encode(prompt).ids, repr(prompt)


def swift_pieces(document: Json, prompt: str) -> list[str]:
    """How swift-transformers 0.1.8 cuts a text without special tokens before its unigram model (PreTokenizer.swift)."""
    pieces = [prompt]
    part = document["pre_tokenizer"]
    for each in part.get("pretokenizers", [part]):
        if each["type"] == "WhitespaceSplit":
            pieces = [word for piece in pieces for word in re.findall(r"\S+", piece)]
        else:
            prefix = SPACE if each.get("add_prefix_space", False) and each.get("prepend_scheme") != "never" else ""
            spaced = [piece.replace(" ", SPACE) for piece in pieces]
            spaced = [piece if piece.startswith(SPACE) else prefix + piece for piece in spaced]
            pieces = [word for piece in spaced for word in re.findall(f"{SPACE}?[^{SPACE}]+|{SPACE}", piece)]
    return pieces


@pytest.mark.parametrize("name", ["newer", "alone", "first", "never", "older", "older, no prefix", "nothing said"])
def test_the_package_finds_the_words_that_the_library_finds(name: str) -> None:
    library = read(DOCUMENTS[name])
    lost = 0
    for prompt in ("a red apple", "Photograph of a naïve apple,", "mars", "don't"):
        expected = [piece for piece, _ in library.pre_tokenizer.pre_tokenize_str(prompt)]
        assert swift_pieces(for_swift(DOCUMENTS[name]), prompt) == expected
        lost += swift_pieces(DOCUMENTS[name], prompt) != expected
    # Without the older word, every text loses its first word's start.
    assert lost == (4 if name in ("newer", "alone", "first", "nothing said") else 0)


def test_a_file_that_the_package_reads_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    said = json.dumps(for_swift(DOCUMENTS["newer"]), indent=7).encode()
    (tmp_path / "in" / "tokenizer.json").write_bytes(said)
    write_t5_tokenizer(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == said


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"pre_tokenizer": {}}')
    with pytest.raises(BundleError, match=r"tokenizer\.json: T5's tokenizer cannot be read"):
        write_t5_tokenizer(tmp_path, tmp_path)
