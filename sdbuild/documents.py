"""Files from outside, read with limits: regular files only, no more bytes, levels or time than a real one needs.

A checkpoint, a lock or a model card may be anything: a pipe that never ends, a device, a gigabyte of brackets. Whoever
reads one through here gets its content or a `DocumentError`, at once.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from sdbuild.errors import SdbuildError

LONGEST_TEXT = 1_000_000
"""Bytes of a card, a license or a configuration; the largest known ones have some 100 kB."""
LONGEST_JSON = 64_000_000
"""Bytes of a JSON document; T5's `tokenizer.json` has 2.4 MB, an index of shards 100 kB."""
DEEPEST = 64
"""Levels of nesting; a `tokenizer.json` has 8."""
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")


class DocumentError(SdbuildError, ValueError):
    """A file that cannot be read as what it should be; the message says why, and not which file."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, links followed.

    Raises:
        OSError: it cannot be opened.
        DocumentError: it is a pipe, a device or a folder.
    """
    # Opening a pipe would wait for its writer, were it not for O_NONBLOCK; for regular files that means nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DocumentError("it is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int = LONGEST_TEXT) -> bytes:
    """The content of a regular file, links followed.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        DocumentError: it is a pipe, a device or a folder, or has more than `limit` bytes.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > limit:
            raise DocumentError(f"it has {status.st_size} bytes, more than the {limit} that one of its kind can have")
        data = file.read(status.st_size + 1)  # not the limit: as many bytes would be set aside at once
    if len(data) > limit:
        raise DocumentError(f"it has more than the {limit} bytes that one of its kind can have")
    return data


def read_json(path: Path, limit: int = LONGEST_JSON, *, unique: bool = False) -> Any:
    """The JSON document in a file; otherwise as `read_bytes`.

    Raises:
        DocumentError: also for what `parse_json` refuses.
    """
    return parse_json(read_bytes(path, limit), unique=unique)


def parse_json(data: bytes, *, unique: bool = False) -> Any:
    """A JSON document (RFC 8259), with nothing that Python's reader takes besides.

    Args:
        data: UTF-8, without a byte order mark.
        unique: refuse an object that has a key twice; otherwise the last one counts, as it does for diffusers.

    Raises:
        DocumentError: it is not JSON, nested too deeply, or holds NaN, an infinity, or half of a surrogate pair.
    """
    try:
        document = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique if unique else None
        )
    except RecursionError:
        raise DocumentError(f"it is nested more than {DEEPEST} levels deep") from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"it is not JSON: {error}") from error
    if _depth(document) > DEEPEST:
        raise DocumentError(f"it is nested more than {DEEPEST} levels deep")
    if _SURROGATE.search(data):
        try:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise DocumentError("it holds half of a surrogate pair, which is no text") from None
    return document


def _refuse_constant(name: str) -> Any:
    raise DocumentError(f"it holds {name}, which is no number in JSON")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DocumentError(f"it has the key {key[:60]!r} twice")
        found[key] = value
    return found


def _depth(document: Any) -> int:
    """Levels of nesting, counted level by level so that depth costs no stack."""
    depth, level = 0, [document]
    while level := [child for value in level if isinstance(value, dict | list) for child in _children(value)]:
        depth += 1
    return depth


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
