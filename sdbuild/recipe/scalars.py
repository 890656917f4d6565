"""Scalars as YAML 1.2 reads them, and every plain word that YAML 1.1 reads otherwise refused.

A recipe is read by PyYAML (YAML 1.1), by editors (YAML 1.2) and by people. A word which these three would
not understand alike, such as ``on``, ``010`` or ``6_4``, is a mistake here, never a guess.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

ScalarValue = str | int | float | bool | None

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+][0-9]+)?")
_LOOSE_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0[xo][0-9a-fA-F]+")
_WORDS: dict[str, ScalarValue] = {"": None, "~": None, "null": None, "true": True, "false": False}
_PREFIX = "tag:yaml.org,2002:"
# More digits than any field needs; a longer one is a commit or a hash that was meant as text.
_LONGEST_NUMBER = 15


@dataclass(frozen=True, slots=True)
class AmbiguousScalar:
    """Why a plain scalar is refused, and how to write it."""

    what: str
    help: str


class _Old(Resolver):
    """YAML 1.1's idea of what a plain scalar is."""

    def tag_of(self, text: str) -> str:
        tag = self.resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return str(tag).removeprefix(_PREFIX)


_OLD = _Old()


def read_plain(text: str) -> ScalarValue | AmbiguousScalar:
    """The value of an unquoted scalar, or why there is none on which all YAML versions agree."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _LONGEST_NUMBER:
        return int(text)
    if _DECIMAL.fullmatch(text) and len(text) <= _LONGEST_NUMBER and math.isfinite(float(text)):
        return float(text)
    return _ambiguity(text) or text


def _ambiguity(text: str) -> AmbiguousScalar | None:
    quoted = f'write `"{text}"` if it is text'
    if text.casefold() in ("y", "n", "yes", "no", "on", "off", "true", "false"):
        truth = "true" if text.casefold() in ("y", "yes", "on", "true") else "false"
        return AmbiguousScalar(
            f"`{text}` is a truth value in YAML 1.1 and a word in YAML 1.2", f"write `{truth}`, or {quoted}"
        )
    if text.casefold() == "null":
        return AmbiguousScalar(f"`{text}` is not the way to write null here", f"write `null`, or {quoted}")
    tag = _OLD.tag_of(text)
    if tag in ("int", "float") or _LOOSE_NUMBER.fullmatch(text):
        return _number(text, quoted)
    if tag == "timestamp":
        return AmbiguousScalar(f"`{text}` is a date in YAML 1.1 and text in YAML 1.2", quoted)
    if tag in ("merge", "value"):
        return AmbiguousScalar(
            f"`{text}` has a meaning of its own in YAML 1.1 and none here", f"use `extends`, or {quoted}"
        )
    return None


def _number(text: str, quoted: str) -> AmbiguousScalar:
    digits = text.lstrip("+-")
    if len(text) > _LONGEST_NUMBER:
        return AmbiguousScalar(f"`{text[:12]}…` would be read as a number", f"{quoted.replace(text, text[:12] + '…')}")
    if "_" in digits:
        plain = digits.replace("_", "")
        return AmbiguousScalar(
            f"`{text}` is the number {plain} in YAML 1.1 and text in YAML 1.2", f"write `{plain}`, or {quoted}"
        )
    if ":" in digits:
        return AmbiguousScalar(f"`{text}` is a base-60 number in YAML 1.1 and text in YAML 1.2", quoted)
    if digits[:2].lower() in ("0x", "0b", "0o"):
        return AmbiguousScalar(f"`{text}` is not a decimal number", f"write it in decimal, or {quoted}")
    if digits[0] == "0" and digits[1:].isdigit():
        decimal = digits.lstrip("0") or "0"
        old = f"{int(digits, 8)} (octal)" if not set(digits) & {"8", "9"} else "text"
        return AmbiguousScalar(
            f"`{text}` is {old} in YAML 1.1 and {decimal} in YAML 1.2",
            f"write `{decimal}` without the zero, or {quoted}",
        )
    return AmbiguousScalar(
        f"`{text}` is not a number that every YAML version reads alike", f"write it like `0.5`, or {quoted}"
    )
