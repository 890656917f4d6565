from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdbuild.builtin import tiny
from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.linter.tokenizer import lint_tokenizer
from sdbuild.bundle.tokenizer import padding_token, write_tokenizer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tiny.generate("tiny-sd2", tmp_path / "checkpoint", ["tokenizer"])
    (tmp_path / "Resources").mkdir()
    return tmp_path / "checkpoint" / "tokenizer"


def written(source: Path) -> tuple[dict[str, int], str]:
    resources = source.parents[1] / "Resources"
    write_tokenizer(source, resources)
    assert list(lint_tokenizer(resources)) == []
    return json.loads((resources / "vocab.json").read_bytes()), (resources / "merges.txt").read_bytes().decode()


def test_the_checkpoints_own_files_are_taken(source: Path) -> None:
    vocabulary, merges = written(source)
    assert vocabulary == json.loads((source / "vocab.json").read_bytes())
    assert merges == (source / "merges.txt").read_text(encoding="utf-8")


def test_a_missing_final_newline_and_carriage_returns_are_mended(source: Path) -> None:
    merges = (source / "merges.txt").read_text(encoding="utf-8")
    (source / "merges.txt").write_bytes(merges.rstrip("\n").replace("\n", "\r\n").encode())
    assert written(source)[1] == merges


def without_files(source: Path) -> tuple[dict[str, int], list[str]]:
    vocabulary = json.loads((source / "vocab.json").read_bytes())
    merges = (source / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    (source / "vocab.json").unlink()
    (source / "merges.txt").unlink()
    return vocabulary, merges


@pytest.mark.parametrize("as_pairs", [False, True])
def test_both_are_derived_from_a_whole_tokenizer(source: Path, as_pairs: bool) -> None:
    vocabulary, merges = without_files(source)
    end = "<|endoftext|>"
    document = {
        "added_tokens": [{"content": end, "id": vocabulary[end]}],
        "model": {
            "type": "BPE",
            "vocab": {token: number for token, number in vocabulary.items() if token != end},
            "merges": [merge.split(" ") for merge in merges] if as_pairs else merges,
        },
    }
    (source / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert written(source) == (vocabulary, "\n".join(["#version: 0.2", *merges, ""]))


def test_transformers_own_whole_tokenizer_gives_the_same(source: Path) -> None:
    from transformers import CLIPTokenizerFast

    CLIPTokenizerFast.from_pretrained(source).save_pretrained(source.parent / "saved")
    expected = written(source)
    saved = source.parent / "saved"
    for name in ("vocab.json", "merges.txt"):
        (saved / name).unlink(missing_ok=True)
    assert written(saved) == expected


def test_no_tokenizer_is_an_error(source: Path) -> None:
    without_files(source)
    with pytest.raises(BundleError, match=r"neither vocab.json and merges.txt nor tokenizer.json"):
        written(source)
    (source / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(BundleError, match=r"no byte-pair encoding.*Unigram"):
        written(source)


def test_the_padding_token(source: Path) -> None:
    assert padding_token(source) == "!"
    (source / "tokenizer_config.json").write_text('{"pad_token": {"content": "<pad>"}}')
    assert padding_token(source) == "<pad>"
    (source / "tokenizer_config.json").unlink()
    (source / "special_tokens_map.json").unlink()
    assert padding_token(source) == "<|endoftext|>"
