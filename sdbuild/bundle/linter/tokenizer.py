"""`vocab.json` and `merges.txt` as the Swift package's tokenizer reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbuild.bundle.byte_pairs import WORD_END, BytePairs
from sdbuild.bundle.linter.violation import Violation
from sdbuild.bundle.tokenizer import END, PADDING, START
from sdbuild.documents import read_json
from sdbuild.interface.swift.files import MERGES, VOCABULARY

_MOST_SHOWN = 5


def lint_tokenizer(resources: Path) -> Iterator[Violation]:
    """Check both files and that they fit each other."""
    missing = [name for name in (VOCABULARY, MERGES) if not (resources / name).is_file()]
    for name in missing:
        yield Violation("tokenizer-missing", name, "not in Resources")
    vocabulary: dict[str, int] | None = None
    if VOCABULARY not in missing:
        try:
            vocabulary = _read_vocabulary(resources / VOCABULARY)
        except ValueError as error:
            yield Violation("vocabulary", VOCABULARY, str(error))
    if vocabulary is not None:
        for token in (START, END, PADDING):
            if token not in vocabulary:
                yield Violation("special-token", VOCABULARY, f"no token {token}")
    if MERGES not in missing:
        yield from _lint_merges(resources / MERGES, vocabulary)


def lint_new_tokens(resources: Path, inversions: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    """Check that what `bundle.json` says of textual inversions is so in both files."""
    if not inversions or list(lint_tokenizer(resources)):
        return
    vocabulary = _read_vocabulary(resources / VOCABULARY)
    pairs = BytePairs((resources / MERGES).read_text(encoding="utf-8"))
    for inversion in inversions:
        if len(inversion["tokens"]) != inversion["vectors"]:
            message = f"{len(inversion['tokens'])} tokens for {inversion['vectors']} vectors"
            yield Violation("new-token", f"bundle.json, textual_inversions, {inversion['token']}", message)
        for token in inversion["tokens"]:
            found = pairs.encode(token)
            if found != [token + WORD_END] or found[0] not in vocabulary:
                yield Violation("new-token", MERGES, f"{token} is read as {' '.join(found)}")


def _read_vocabulary(path: Path) -> dict[str, int]:
    content = read_json(path, unique=True)
    if not isinstance(content, dict) or not content:
        raise ValueError("not a JSON object of token → id")
    ids = list(content.values())
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in ids):
        raise ValueError("an id is not a non-negative integer")
    if len(set(ids)) != len(ids):
        raise ValueError("two tokens have the same id")
    return content


def _lint_merges(path: Path, vocabulary: dict[str, int] | None) -> Iterator[Violation]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        yield Violation("merges", MERGES, f"not UTF-8: {error}")
        return
    if not text.endswith("\n"):
        yield Violation("merges-newline", MERGES, "no newline at the end of the file")
    malformed, unknown = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        tokens = line.split(" ")
        if len(tokens) != 2 or not all(tokens) or line != line.strip():
            malformed.append(number)
        elif vocabulary is not None and not {*tokens, "".join(tokens)} <= vocabulary.keys():
            unknown.append(number)
    if malformed:
        yield Violation("merges", MERGES, f"not two tokens with one space between them: {_lines(malformed)}")
    if unknown:
        yield Violation("merges", MERGES, f"the vocabulary lacks a token, or what two of them make: {_lines(unknown)}")


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_SHOWN]))
    more = f" and {len(numbers) - _MOST_SHOWN} more" if len(numbers) > _MOST_SHOWN else ""
    return f"line {shown}{more}"
