"""T5's tokenizer as swift-transformers reads a `tokenizer.json`: what is done to a text before the unigram model.

Sources: Tokenizer.swift, Normalizer.swift, PreTokenizer.swift and UnigramTokenizer.swift of
huggingface/swift-transformers 0.1.8.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

import regex

from sdbuild.bundle.swift_strings import canonical, characters, lowercased
from sdbuild.pipeline.clients.swift.unigram import Unigram
from sdbuild.pipeline.errors import PipelineError

Json = Mapping[str, Any]

_ALWAYS, _FIRST = "always", "first"
_WIDE_TILDE = "～"
_SPACES = (*"\t\n\f\r", "\u1680", *map(chr, range(0x200B, 0x2010)), *"\u2028\u2029\u2581\ufeff\ufffd")
_CONTROLS = (*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F)
_PRECOMPILED = {ord(space): " " for space in _SPACES} | dict.fromkeys(_CONTROLS, "")
_FORMS: Mapping[str, Literal["NFC", "NFD", "NFKC", "NFKD"]] = {
    "NFD": "NFD",
    "NFC": "NFC",
    "NFKD": "NFKD",
    "NFKC": "NFKC",
    "StripAccents": "NFKC",
}


class T5Tokenizer:
    """A `tokenizer.json` with a unigram model.

    Attributes:
        end: the id that ends a text.
        padding: the id that fills the rest.
    """

    def __init__(self, whole: Json, configuration: Json) -> None:
        """Read it.

        Args:
            whole: the content of `tokenizer.json`.
            configuration: the content of `tokenizer_config.json`.

        Raises:
            PipelineError: swift-transformers stops at this file, or it is of a kind that no T5 has.
        """
        model = whole["model"]
        if not isinstance(model.get("unk_id"), int):
            raise PipelineError("tokenizer.json: the model has no unk_id, at which swift-transformers stops")
        self._unigram = Unigram(model["vocab"], model["unk_id"])
        added = [token for token in whole.get("added_tokens") or [] if "content" in token]
        self._added = {token["content"] for token in added if "id" in token}
        self._pattern = regex.compile("|".join(map(_pattern_of, added))) if added else None
        self._normalizer, self._pre_tokenizer = whole.get("normalizer"), whole.get("pre_tokenizer")
        end = configuration.get("eos_token")
        self.end = self._unigram.ids.get(canonical(end), 1) if isinstance(end, str) else 1
        self.padding = self._unigram.ids.get(" ", 0)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text; those of added tokens are looked up as they are."""
        pieces: list[str] = []
        for number, section in enumerate(self._sections(text)):
            if canonical(section) in self._added:
                pieces.append(section)
                continue
            for word in _pre_tokenize(self._pre_tokenizer, [_normalize(self._normalizer, section)], first=number == 0):
                pieces += self._unigram.tokenize(word)
        return pieces

    def id_of(self, piece: str) -> int:
        """A piece's id; that of the unknown piece for what the vocabulary does not have."""
        return self._unigram.ids.get(canonical(piece), self._unigram.unknown)

    def _sections(self, text: str) -> list[str]:
        """The text between added tokens, and these.

        What stands before one is cut off by its offset in UTF-16 as if that counted characters.
        """
        if self._pattern is None or not (matches := list(self._pattern.finditer(text))):
            return [text]
        letters, sections, start = regex.findall(r"\X", text), [], 0
        for match in matches:
            first, last = (_utf16(text[: match.start()]), _utf16(text[: match.end()]))
            if last > len(letters):
                raise PipelineError(f"swift-transformers stops at {match[0]!r} behind such characters as emoji")
            if start < first:
                sections.append("".join(letters[start:first]))
            start = last
            sections.append(next(group for group in reversed((match[0], *match.groups())) if group is not None))
        if start < len(letters):
            sections.append("".join(letters[start:]))
        return sections


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _pattern_of(token: Json) -> str:
    before, after = (r"\s*" if token.get(side) else "" for side in ("lstrip", "rstrip"))
    return f"{before}({regex.escape(token['content'])}){after}"


def _normalize(step: Json | None, text: str) -> str:
    if step is None:
        return text
    kind = step["type"]
    if kind == "Sequence":
        for each in step["normalizers"]:
            text = _normalize(each, text)
        return text
    if kind in _FORMS:
        return unicodedata.normalize(_FORMS[kind], text)
    known: Mapping[str, Callable[[Json, str], str]] = {
        "Precompiled": lambda _, given: _precompiled(given),
        "Lowercase": lambda _, given: lowercased(given),
        "Prepend": lambda entry, given: entry["prepend"] + given,
        "Replace": _replace,
    }
    if kind not in known:
        raise PipelineError(f"tokenizer.json: swift-transformers 0.1.8 has no normalizer {kind} for T5, and stops")
    return known[kind](step, text)


def _precompiled(text: str) -> str:
    """What stands there for SentencePiece's table: no control characters, spaces for separators, and NFKC."""
    parts = text.translate(_PRECOMPILED).split(_WIDE_TILDE)
    # An empty part before a tilde is dropped together with it.
    kept = [part for part in parts[:-1] if part] + parts[-1:]
    return _WIDE_TILDE.join(unicodedata.normalize("NFKC", part) for part in kept)


def _replace(step: Json, text: str) -> str:
    pattern, content = step["pattern"], step["content"]
    if "String" in pattern:
        return _exchange(text, pattern["String"], content)
    return str(regex.sub(pattern["Regex"], lambda _: content, text))


def _exchange(text: str, old: str, new: str) -> str:
    """Replace whole characters: a space with a combining mark is no space."""
    wanted, letters, made = characters(old), regex.findall(r"\X", text), []
    place = 0
    while place < len(letters):
        if wanted and [canonical(letter) for letter in letters[place : place + len(wanted)]] == wanted:
            made.append(new)
            place += len(wanted)
        else:
            made.append(letters[place])
            place += 1
    return "".join(made)


def _pre_tokenize(step: Json | None, texts: list[str], *, first: bool) -> list[str]:
    if step is None:
        return texts
    kind = step["type"]
    if kind == "Sequence":
        for each in step["pretokenizers"]:
            texts = _pre_tokenize(each, texts, first=first)
        return texts
    if kind in ("Whitespace", "WhitespaceSplit"):
        return [word for text in texts for word in regex.findall(r"[^\t\n\f\r\p{Z}]+", text)]
    if kind == "Metaspace":
        return [piece for text in texts for piece in _metaspace(step, text, first=first)]
    raise PipelineError(f"tokenizer.json: no T5 has the pre-tokenizer {kind}")


def _metaspace(step: Json, text: str, *, first: bool) -> list[str]:
    """Mark the starts of words: the first one only where `add_prefix_space` stands, as older files have it."""
    mark = step.get("replacement", " ")
    written = step.get("str_rep", mark)
    marked = _exchange(text, " ", written)
    scheme = step.get("prepend_scheme", _ALWAYS)
    if step.get("add_prefix_space") and characters(marked)[: len(characters(mark))] != characters(mark):
        marked = (written if scheme != "never" and (scheme != _FIRST or first) else "") + marked
    return [piece for piece in regex.split(f"(?={regex.escape(mark)})", marked) if piece]
