"""Text as Swift's `String` and Foundation see it: what its characters are, and which of them are equal.

A `Character` of Swift is an extended grapheme cluster of UAX #29, two strings are equal where they are canonically
equivalent (UAX #15), `lowercased()` maps each scalar by itself without its neighbours, so that a capital sigma is σ
wherever it stands, and `trimmingCharacters(in: .whitespacesAndNewlines)` takes Core Foundation's set of scalars.

Sources: The Swift Programming Language, "Strings and Characters"; `String.lowercased()` in the standard library of
Swift 5.7 and later; `CFCharacterSet.c` of Core Foundation for the set.
"""

from __future__ import annotations

import unicodedata

import regex

_CLUSTER = regex.compile(r"\X")
_TRIMMED = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200C)))


def characters(text: str) -> list[str]:
    """A text's characters, each in the form that all equal ones share."""
    return [canonical(cluster) for cluster in _CLUSTER.findall(text)]


def canonical(text: str) -> str:
    """The form that all equal strings share: normalization form C."""
    return unicodedata.normalize("NFC", text)


def lowercased(text: str) -> str:
    """A text in lower case, scalar by scalar: `İ` becomes an `i` with a dot above, as everywhere but in Turkish."""
    return "".join(map(str.lower, text))


def trimmed(text: str) -> str:
    """A text without the white space and line ends around it, the zero-width space among them."""
    return text.strip(_TRIMMED)


def split_at_spaces(text: str) -> list[list[str]]:
    """The words of a text, as characters; a space with a combining mark is another character and splits nothing."""
    words: list[list[str]] = [[]]
    for character in characters(text):
        if character == " ":
            words.append([])
        else:
            words[-1].append(character)
    return [word for word in words if word]
