"""What a stage found out that is not the same on every machine: noted beside its artifact, never in it.

Two processors do not give the same last bits of a sum, and no bundle may tell which of them verified it. Notes go into
the record of the run, from there into the build's summary and into `build-host.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.documents import DocumentError, read_json


def write_notes(out: Path, notes: Mapping[str, Any]) -> None:
    """Note something about the artifact that is made in `out`: JSON values."""
    _place(out).write_text(json.dumps(notes), encoding="utf-8")


def take_notes(out: Path) -> dict[str, Any]:
    """What was noted about the artifact in `out`, which is then gone; empty where nothing was."""
    place = _place(out)
    try:
        notes = read_json(place)
    except (OSError, DocumentError):
        return {}
    place.unlink()
    return notes if isinstance(notes, dict) else {}


def _place(out: Path) -> Path:
    return out.with_name(f"{out.name}.notes.json")
