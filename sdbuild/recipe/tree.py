"""The tree that a YAML file spells, whose every key and value knows its line and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdbuild.recipe.diagnostics import Span
from sdbuild.recipe.scalars import ScalarValue


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, number, truth value or null."""

    value: ScalarValue
    span: Span


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place and its value."""

    key: Span
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys, which are always text, and their values in the order of the file."""

    entries: dict[str, Entry]
    span: Span


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The node as Python data, without positions."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(entry.value) for key, entry in node.entries.items()}


def height_of(node: Node) -> int:
    """The levels below a node; 0 for a scalar."""
    match node:
        case Scalar():
            return 0
        case Sequence():
            return max((height_of(item) + 1 for item in node.items), default=0)
        case Mapping():
            return max((height_of(entry.value) + 1 for entry in node.entries.values()), default=0)
