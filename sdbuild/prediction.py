"""How noise is told from what a checkpoint predicts: the file that the `prediction` stage writes and others read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

PREDICTION = "prediction.json"
"""α and σ of each training step; not there where the checkpoint predicts noise, or is left as it is."""


def write_tables(folder: Path, alphas: Sequence[float], sigmas: Sequence[float]) -> None:
    """Write both tables, one number a training step."""
    text = json.dumps({"alphas": list(alphas), "sigmas": list(sigmas)}, indent=0)
    (folder / PREDICTION).write_text(text + "\n", encoding="utf-8", newline="\n")


def read_tables(folder: Path) -> tuple[list[float], list[float]]:
    """α and σ of each training step."""
    document = json.loads((folder / PREDICTION).read_bytes())
    return document["alphas"], document["sigmas"]
