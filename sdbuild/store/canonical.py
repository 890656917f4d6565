"""One way to write a JSON document, so that a digest of the document means something.

Two documents that are equal in meaning give the same bytes on every machine: keys sorted, no white space, ASCII only,
and no number that could be written in two ways.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from sdbuild.store.errors import StoreError

_EXACT_FLOAT_LIMIT = 2**53  # beyond it neighbouring integers share one float


def canonical_json(document: object) -> bytes:
    """The canonical bytes of a document made of mappings, lists, tuples, strings, integers, booleans and None.

    A float that holds a whole number is written as that integer; any other float is refused, because its decimal
    form is a convention (write it as a decimal string instead).

    Raises:
        StoreError: a value that has no canonical form; the message gives its place in the document.
    """
    normal = _normalise(document, "$")
    return json.dumps(normal, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def key_of(document: Mapping[str, object]) -> str:
    """The action key of a key document: the sha256 of its canonical JSON, in lower-case hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _normalise(value: object, place: str) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _whole_number(value, place)
    if isinstance(value, list | tuple):
        return [_normalise(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_name(name, place): _normalise(item, f"{place}.{name}") for name, item in value.items()}
    raise StoreError(
        f"{place}: a {type(value).__name__} has no canonical JSON form; "
        "use a mapping, list, string, integer, boolean or null"
    )


def _whole_number(value: float, place: str) -> int:
    if value.is_integer() and abs(value) <= _EXACT_FLOAT_LIMIT:
        return int(value)
    raise StoreError(
        f"{place}: the float {value!r} can be written in more than one way; give it as a decimal string such as '0.5'"
    )


def _name(name: object, place: str) -> str:
    if not isinstance(name, str):
        raise StoreError(f"{place}: the mapping key {name!r} is a {type(name).__name__}; keys are strings")
    return _text(name, place)


def _text(value: str, place: str) -> str:
    plain = str.__str__(value)  # the value of a string enumeration, not its member's name
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StoreError(f"{place}: the string {plain!r} is not valid Unicode") from error
    return plain
