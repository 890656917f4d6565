"""Whether a tokenizer's vocabulary fits the text encoder that looks its ids up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdbuild.bundle.errors import BundleError
from sdbuild.documents import read_json
from sdbuild.interface.swift.files import VOCABULARY


def check_ids(resources: Path, text_encoder: dict[str, Any]) -> None:
    """Refuse ids beyond the text encoder's table: a phone would read whatever lies behind it.

    Args:
        resources: the folder with `vocab.json`.
        text_encoder: the text encoder's configuration; one that does not say the table's size is not compared.

    Raises:
        BundleError: names the token.
    """
    rows = text_encoder.get("vocab_size")
    if not isinstance(rows, int):
        return
    vocabulary = read_json(resources / VOCABULARY, unique=True)
    token, number = max(vocabulary.items(), key=lambda item: int(item[1]), default=("", -1))
    if number >= rows:
        raise BundleError(
            f"{VOCABULARY}: the token {token[:60]!r} has the id {number}, and the text encoder's table has {rows} "
            "rows; tokenizer and text encoder are of different checkpoints: download both again"
        )
