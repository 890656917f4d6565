"""T5's `tokenizer.json` and `tokenizer_config.json` as the Swift package reads them.

It does so with swift-transformers 0.1.8, whose sources are named beside each rule, and feeds the model by
`TextEncoderT5.swift`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.linter.violation import Violation
from sdbuild.bundle.t5_tokenizer import TOKENIZER, prepends
from sdbuild.documents import read_json
from sdbuild.interface.swift.files import T5_TOKENIZER

_CONFIGURATION = T5_TOKENIZER[0]
# Part of the document → the kinds that swift-transformers makes (`fromConfig` of each factory); others end the app.
_KNOWN: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        (
            *("Sequence", "Prepend", "Replace", "Lowercase", "NFD", "NFC", "NFKD", "NFKC", "Bert", "Precompiled"),
            "StripAccents",
        )
    ),
    "pre_tokenizer": frozenset(
        ("Sequence", "ByteLevel", "Punctuation", "Digits", "Split", "Whitespace", "WhitespaceSplit", "Metaspace")
    ),
    "post_processor": frozenset(("TemplateProcessing", "ByteLevel", "RobertaProcessing")),
    "decoder": frozenset(("Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")),
}
_INNER = ("normalizers", "pretokenizers", "decoders")
_PADDING, _END = 0, 1
_RULE = "t5-tokenizer"


def lint_t5_tokenizer(resources: Path) -> Iterator[Violation]:
    """Check both files, where both are there; that they come together is another rule's."""
    if not all((resources / name).is_file() for name in T5_TOKENIZER):
        return
    try:
        configuration, whole = (read_json(resources / name) for name in T5_TOKENIZER)
        yield from _lint_parts(whole)
        yield from _lint_vocabulary(whole, configuration)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        yield Violation(_RULE, TOKENIZER, f"malformed: {error!r}")


def _lint_parts(whole: Mapping[str, Any]) -> Iterator[Violation]:
    for place, known in _KNOWN.items():
        for part in _with_inner(whole.get(place)):
            if part["type"] not in known:
                what = f"{part['type']}, which ends the app; known are {', '.join(sorted(known))}"
                yield Violation(_RULE, f"{TOKENIZER}, {place}", what)
            elif place == "pre_tokenizer" and part["type"] == "Metaspace":
                yield from _lint_metaspace(part, place)


def _lint_metaspace(part: dict[str, Any], place: str) -> Iterator[Violation]:
    """`▁` is put before a text only where `add_prefix_space` is true (PreTokenizer.swift)."""
    if prepends(part) and part.get("add_prefix_space") is not True:
        what = "no add_prefix_space, so that the first word loses its ▁; write add_prefix_space: true"
        yield Violation(_RULE, f"{TOKENIZER}, {place}", what)


def _lint_vocabulary(whole: Mapping[str, Any], configuration: Mapping[str, Any]) -> Iterator[Violation]:
    """A list of pieces with scores (UnigramTokenizer.swift); padding is 0 and the end 1 (TextEncoderT5.swift)."""
    pieces, unknown = whole["model"]["vocab"], whole["model"].get("unk_id")
    where = f"{TOKENIZER}, model"
    if not isinstance(pieces, list) or not all(isinstance(piece, list) and len(piece) == 2 for piece in pieces):
        yield Violation(_RULE, where, "vocab is no list of pieces with scores: no unigram model")
        return
    if not isinstance(unknown, int) or not 0 <= unknown < len(pieces):
        yield Violation(_RULE, where, f"unk_id {unknown} is no id")
    # Swift compares strings by canonical equivalence, and two equal keys of one dictionary end the app.
    ids: dict[str, int] = {}
    for number, (token, _) in enumerate(pieces):
        if (first := ids.setdefault(unicodedata.normalize("NFC", token), number)) != number:
            yield Violation(_RULE, where, f"pieces {first} and {number} are the same text to Swift: {token}")
    if ids.get(" ", _PADDING) != _PADDING:
        # The package takes the piece " " for padding, and 0 where there is none.
        yield Violation(_RULE, where, f"the piece of one space has id {ids[' ']}, and would be fed as padding")
    end = configuration.get("eos_token")
    # One that is no piece, or is written as an object, leaves the package with 1.
    if isinstance(end, str) and ids.get(end, _END) != _END:
        yield Violation(_RULE, _CONFIGURATION, f"eos_token {end} has id {ids[end]}, must be {_END}")


def _with_inner(part: Any) -> Iterator[dict[str, Any]]:
    """A part and all parts in it."""
    if part is None:
        return
    yield part
    for name in _INNER:
        for inner in part.get(name, ()):
            yield from _with_inner(inner)
