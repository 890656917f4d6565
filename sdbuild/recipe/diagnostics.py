"""What is wrong, where in which file, and what to do: the one form in which this room reports a user's mistake."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from sdbuild.errors import SdbuildError
from sdbuild.paths import shown_path

_SHOWN_WIDTH = 100
_LONGEST_LINE = 1000


class Severity(StrEnum):
    """Whether a diagnostic stops the build."""

    ERROR = "error"
    WARNING = "warning"
    OVERRULED = "overruled"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line of a file.

    Attributes:
        path: the file, as the user named it.
        line: counted from 1.
        column: counted from 1, in characters.
        length: in characters; 1 or more.
        text: the whole source line, without its end.
    """

    path: Path
    line: int
    column: int
    length: int
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake, or one preflight rule that a recipe breaks.

    Attributes:
        code: a stable name; for preflight it is the rule's name, which `allow:` takes.
        message: what is wrong, one clause.
        span: where; None when there is no file to point into.
        help: what to do next.
        reason: why a preflight rule exists.
        source: where the reason is documented.
        severity: `OVERRULED` when the recipe allows it by name, `WARNING` when the build goes on all the same.
    """

    code: str
    message: str
    span: Span | None = None
    help: str = ""
    reason: str = ""
    source: str = ""
    severity: Severity = Severity.ERROR

    def render(self) -> str:
        """The text for people: position, source line, caret, what to do."""
        head = (
            self.message if self.span is None else f"{shown_path(self.span.path)}:{_place(self.span)}: {self.message}"
        )
        lines = [head]
        gutter = "  "
        if self.span is not None:
            number = str(self.span.line)
            text, caret = _excerpt(self.span)
            lines += [f"  {number} | {text}".rstrip(), f"  {' ' * len(number)} | {caret}"]
            gutter = f"  {' ' * len(number)} "
        notes = [("reason", self.reason), ("source", self.source), ("help", self.help)]
        lines += [f"{gutter}= {label}: {text}" for label, text in notes if text]
        return "\n".join("".join(map(_visible, line[:_LONGEST_LINE])) for line in lines)


class RecipeError(SdbuildError):
    """A recipe or a target that cannot be used; holds every mistake found, in the order of the files' lines."""

    exit_status = 2

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = in_order(diagnostics)
        super().__init__(render(self.diagnostics))


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """All diagnostics as one text, a blank line between two."""
    return "\n\n".join(diagnostic.render() for diagnostic in diagnostics)


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The diagnostics by file, line and column, each once."""

    def key(diagnostic: Diagnostic) -> tuple[str, int, int, str, str]:
        span = diagnostic.span
        place = ("", 0, 0) if span is None else (str(span.path), span.line, span.column)
        return (*place, diagnostic.code, diagnostic.message)

    return tuple(sorted(dict.fromkeys(diagnostics), key=key))


def nearest(word: object, names: Iterable[object]) -> str:
    """``did you mean `x`?`` when some name is close to the word or begins or ends with it, else the empty string."""
    spelled = {str(name).casefold(): str(name) for name in names}
    sought = str(word).casefold()[:_SHOWN_WIDTH]
    close = get_close_matches(sought, sorted(spelled), n=1, cutoff=0.6)
    if len(sought) > 1:
        close += [name for name in sorted(spelled) if name.startswith(sought) or name.endswith(sought)]
    return f"did you mean `{spelled[close[0]]}`?" if close else ""


def one_of(names: Iterable[object]) -> str:
    """The names as a phrase: ``a, b or c``."""
    words = [str(name) for name in names]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"


def _place(span: Span) -> str:
    return f"{span.line}:{span.column}"


def _excerpt(span: Span) -> tuple[str, str]:
    """The source line, cut to a window around the span where it is long, and the caret line beneath it."""
    start = span.column - 1
    first = 0 if len(span.text) <= _SHOWN_WIDTH else max(0, min(start - 20, len(span.text) - _SHOWN_WIDTH))
    window = "".join(_visible(character) for character in span.text[first : first + _SHOWN_WIDTH])
    lead = "…" if first else ""
    before = window[: start - first]
    marked = window[start - first : start - first + span.length]
    tail = "…" if first + _SHOWN_WIDTH < len(span.text) else ""
    return f"{lead}{window}{tail}", " " * (len(lead) + _width(before)) + "^" * max(1, _width(marked))


def _visible(character: str) -> str:
    """The character itself, or a one-column stand-in for a tab or another control character."""
    if character == "\t":
        return "→"
    # Nothing that a file holds may steer the reader's terminal.
    return character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"


def _width(text: str) -> int:
    """How many terminal columns the text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
