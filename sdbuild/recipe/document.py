"""YAML text as a tree whose every key and value knows its line and column; all mistakes of a file in one pass.

PyYAML's parser gives events with marks; the tree is composed here, because its own composer stops at the
first mistake, forgets duplicate keys and expands aliases without a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdbuild.documents import DocumentError, read_bytes
from sdbuild.recipe.diagnostics import Diagnostic, Span, nearest
from sdbuild.recipe.scalars import AmbiguousScalar, read_plain
from sdbuild.recipe.tree import Entry, Mapping, Node, Scalar, Sequence, height_of

MAXIMUM_BYTES = 256 * 1024
MAXIMUM_NODES = 10_000
MAXIMUM_DEPTH = 32

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_document(path: Path) -> tuple[Mapping | None, list[Diagnostic]]:
    """Read a YAML file whose root is a mapping.

    Returns:
        The root, or None when nothing can be said about the contents, and every mistake of the YAML itself.
    """

    def unreadable(code: str, message: str, help: str) -> tuple[None, list[Diagnostic]]:  # noqa: A002
        return None, [Diagnostic(code, message, Span(path, 1, 1, 1, ""), help)]

    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            return unreadable(
                "too-large", f"the file has {size} bytes, more than {MAXIMUM_BYTES}", "is this the file that you meant?"
            )
        data = read_bytes(path, MAXIMUM_BYTES)
    except DocumentError as error:
        return unreadable("unreadable", f"cannot be read: {error}", "is this the file that you meant?")
    except OSError as error:
        return unreadable("unreadable", f"cannot be read: {error.strerror}", "check the path and its permissions")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [
            Diagnostic(
                "not-utf-8",
                f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8",
                Span(path, line, 1, 1, data.splitlines()[line - 1].decode("utf-8", "replace")),
                "save the file in UTF-8",
            )
        ]
    return parse(text, path)


def parse(text: str, path: Path) -> tuple[Mapping | None, list[Diagnostic]]:
    """As `read_document`, for text that is already in memory."""
    source = _Source(path, re.split("\r\n|\r|\n", text))
    mistakes = list(_unusable_characters(source))
    if mistakes:
        return None, mistakes
    try:
        composer = _Composer(source, yaml.parse(text, Loader=_Loader))
        root = composer.compose()
    except _StoppedError as stopped:
        return None, [*composer.mistakes, stopped.diagnostic]
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_mistake(source, error)]
    return root, composer.mistakes


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    lines: list[str]

    def span(self, line: int, column: int, length: int = 1) -> Span:
        """A span from a parser's counts, which start at 0; never beyond the end of its line."""
        line = min(line, len(self.lines) - 1)
        text = self.lines[line]
        return Span(self.path, line + 1, column + 1, max(1, min(length, len(text) - column)), text)

    def of(self, start: Any, end: Any) -> Span:
        length = end.column - start.column if end.line == start.line else len(self.lines[start.line]) - start.column
        return self.span(start.line, start.column, length)


def _unusable_characters(source: _Source) -> Iterator[Diagnostic]:
    """Tabs and control characters; a tab in a line that is only a comment does no harm."""
    for number, line in enumerate(source.lines):
        if (column := line.find("\t")) >= 0 and not line.lstrip().startswith("#"):
            yield Diagnostic("tab", "a tab", source.span(number, column), "write spaces")
        if found := _UNPRINTABLE.search(line):
            span = source.span(number, found.start())
            yield Diagnostic("control-character", f"the character U+{ord(found[0]):04X}", span, "remove it")


_SYNTAX = (
    ("mapping values are not allowed", "a `:` where no key can be", 'quote a text that holds `: `, as in `"a: b"`'),
    ("could not find expected ':'", "a key without `:`", "write `key: value`, and indent what belongs to a key"),
    ("found character that cannot start", "a character that cannot start a value", "quote the text"),
    ("found unknown escape", "an unknown escape in a quoted text", "use single quotes, or double the backslash"),
    ("found unexpected end of stream", "a quoted text that never ends", "close the quote"),
    (
        "did not find expected ',' or",
        "a list or mapping in brackets that is not closed",
        "close it, and separate with `,`",
    ),
    ("expected ',' or", "a list or mapping in brackets that is not closed", "close it, and separate with `,`"),
    ("did not find expected key", "a line whose indentation fits nothing above it", "align it with the lines above"),
    ("did not find expected '-'", "a line whose indentation fits nothing above it", "align it with the lines above"),
    ("expected <block end>", "a line whose indentation fits nothing above it", "align it with the lines above"),
)

_UNCLOSED = (
    "could not find expected ':'",
    "found unexpected end of stream",
    "did not find expected ',' or",
    "expected ',' or",
)


def _syntax_mistake(source: _Source, error: yaml.MarkedYAMLError) -> Diagnostic:
    problem = error.problem or "not YAML"
    # What was never closed is best shown where it begins; the problem's own mark is where the file ends.
    unclosed = any(fragment in problem for fragment in _UNCLOSED)
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    span = source.span(mark.line, mark.column) if mark else source.span(0, 0)
    if "nesting depth" in problem:  # libyaml, which reads ahead, has a bound of its own
        return _too_deep(span)
    for fragment, message, help_ in _SYNTAX:
        if fragment in problem:
            return Diagnostic("syntax", message, span, help_)
    return Diagnostic("syntax", f"not YAML: {problem}", span, "see https://yaml.org/spec/1.2.2/")


def _too_deep(span: Span) -> Diagnostic:
    return Diagnostic("too-deep", f"nested more than {MAXIMUM_DEPTH} levels", span, "flatten it")


class _StoppedError(Exception):
    """Composing cannot go on."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic


@dataclass(frozen=True, slots=True)
class _Anchored:
    """An anchored node, with its size and height when its aliases are written out."""

    node: Node
    size: int
    height: int


class _Composer:
    """Builds the tree from the parser's events."""

    def __init__(self, source: _Source, events: Iterator[yaml.Event]) -> None:
        self.source = source
        self.events = events
        self.mistakes: list[Diagnostic] = []
        self.anchors: dict[str, _Anchored | None] = {}  # None while the anchored node is still being read
        self.nodes = 0

    def report(self, code: str, message: str, span: Span, help_: str) -> None:
        self.mistakes.append(Diagnostic(code, message, span, help_))

    def compose(self) -> Mapping | None:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self.report("empty", "the file is empty", self.source.span(0, 0), "write at least `name: …`")
            return None
        root = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            span = self.source.of(event.start_mark, event.end_mark)
            self.report("several-documents", "a second document", span, "one file holds one: remove `---`, or split it")
        if isinstance(root, Scalar) and root.value is None:
            self.report("empty", "the file is empty", self.source.span(0, 0), "write at least `name: …`")
            return None
        if not isinstance(root, Mapping):
            kind = "list" if isinstance(root, Sequence) else "single value"
            self.report(
                "not-a-mapping", f"a {kind}, where `key: value` lines are wanted", root.span, "start with `name: …`"
            )
            return None
        return root

    def node(self, event: yaml.Event, depth: int) -> Node:
        span = self.source.of(event.start_mark, event.end_mark)
        self.count(1, span)
        self.check_depth(depth, span)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), span, depth)
        anchor = getattr(event, "anchor", None)
        before = self.nodes
        if anchor is not None:
            self.anchors[anchor] = None
        if (tag := getattr(event, "tag", None)) is not None:
            self.report("tag", f"the tag `{_short_tag(tag)}`", span, "remove it: types follow from the field")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, span)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(event, depth + 1))
            node = Sequence(tuple(items), span)
        else:
            node = self.mapping(span, depth)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(node, self.nodes - before + 1, height_of(node))
        return node

    def mapping(self, span: Span, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            value = self.node(next(self.events), depth + 1)
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                shown = "null" if isinstance(key, Scalar) and key.value is None else "not text"
                self.report("key", f"a key that is {shown}", key.span, "keys are words")
            elif key.value in entries:
                first = entries[key.value].key.line
                self.report(
                    "duplicate-key", f"`{key.value}` again; it is in line {first} already", key.span, "keep one"
                )
            else:
                entries[key.value] = Entry(key.span, value)
        return Mapping(entries, span)

    def scalar(self, event: yaml.ScalarEvent, span: Span) -> Scalar:
        if event.style not in (None, ""):
            return Scalar(event.value, span)
        value = read_plain(event.value)
        if isinstance(value, AmbiguousScalar):
            self.report("ambiguous-scalar", value.what, span, value.help)
            return Scalar(event.value, span)
        return Scalar(value, span)

    def alias(self, anchor: str, span: Span, depth: int) -> Node:
        if anchor not in self.anchors:
            self.report("unknown-alias", f"no anchor `&{anchor}` before this", span, nearest(anchor, self.anchors))
            return Scalar(f"*{anchor}", span)
        anchored = self.anchors[anchor]
        if anchored is None:
            self.report("recursive-alias", f"`*{anchor}` inside of what it names", span, "write it out")
            return Scalar(f"*{anchor}", span)
        self.count(anchored.size - 1, span)
        self.check_depth(depth + anchored.height, span)
        return anchored.node

    def check_depth(self, depth: int, span: Span) -> None:
        if depth > MAXIMUM_DEPTH:
            raise _StoppedError(_too_deep(span))

    def count(self, nodes: int, span: Span) -> None:
        """Bound the tree's size with every alias written out, so that ten short lines cannot become a billion nodes."""
        self.nodes += nodes
        if self.nodes > MAXIMUM_NODES:
            raise _StoppedError(
                Diagnostic(
                    "too-many-values",
                    f"more than {MAXIMUM_NODES} values, aliases written out",
                    span,
                    "use fewer aliases",
                )
            )


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
