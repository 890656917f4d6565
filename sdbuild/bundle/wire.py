"""Protobuf's wire format, just enough to read a few fields of a message without its generated classes.

Importing coremltools for them takes seconds; a model's description is a few hundred bytes. The format is specified at
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | memoryview


class WireError(ValueError):
    """The bytes are no protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield each field's number and its value: an integer, or the bytes of a string, message or packed list.

    Raises:
        WireError: the message is cut off or malformed.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"wire type {kind} at byte {position}")
        if position + length > len(message):
            raise WireError(f"field {number} is cut off at byte {position}")
        yield number, message[position : position + length]
        position += length


def integers(value: Value) -> tuple[int, ...]:
    """The elements of a repeated integer field, packed or not; negative numbers are two's complement of 64 bits."""
    if isinstance(value, int):
        return (_signed(value),)
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return tuple(numbers)


def text(value: Value) -> str:
    """A string field's value."""
    if isinstance(value, int):
        raise WireError("a string was expected")
    return bytes(value).decode("utf-8")


def message(value: Value) -> memoryview:
    """A message field's value."""
    if isinstance(value, int):
        raise WireError("a message was expected")
    return value


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise WireError(f"cut off at byte {position}")
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (1 << 64) - 1, position
    raise WireError(f"a number of more than 64 bits at byte {position}")
