"""What a build without the Hub takes: the files that its cache holds, named one by one as a lock would.

The cache may hold fewer files than the repository has, and a choice among fewer may be another one. So what is chosen
offline is part of the key: the result never stands for what the same recipe gives with the Hub at hand, and two builds
that take the same files share them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.files import SINGLE_FILE, CheckpointFilesError, select_files, select_single_file
from sdbuild.checkpoints.hub_cache import CachedFile, snapshot_files
from sdbuild.documents import LONGEST_JSON, DocumentError, read_bytes
from sdbuild.paths import user_path

_TRUE = ("1", "ON", "YES", "TRUE")  # what the client takes for true


def is_asked_for() -> bool:
    """Whether ``HF_HUB_OFFLINE`` keeps builds to the Hub's cache."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def choice(version: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The commit and the files that a `source` action takes from the cache, as its parameters say them.

    Args:
        version: ``owner/name``.
        parameters: the action's, as they are with the Hub.

    Returns:
        ``revision`` and ``files``; empty where the cache does not hold what is needed, which the action then tells.
    """
    folder = _cache() / ("models--" + version.replace("/", "--"))
    found = snapshot_files(folder, parameters["revision"] or "main")
    if found is None:
        return {}
    commit, files = found
    held = {file[0]: file for file in files}
    try:
        chosen = _select(parameters, list(held))
        snapshot = folder / "snapshots" / commit
        return {
            "revision": commit,
            "files": {path: _pinned(snapshot, held[name]) for path, name in sorted(chosen.items())},
        }
    except (CheckpointFilesError, DocumentError, OSError):
        return {}


def _select(parameters: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    if parameters["component"] == SINGLE_FILE:
        return select_single_file(parameters["file"], names)
    return select_files(parameters["component"], names, precision=parameters.get("precision", "float32"))


def _pinned(snapshot: Path, file: CachedFile) -> dict[str, Any]:
    name, size, sha256, _ = file
    if sha256 is None:  # a small file, which the cache names by git's hash
        sha256 = hashlib.sha256(read_bytes(snapshot / name, LONGEST_JSON)).hexdigest()
    return {"name": name, "size": size, "sha256": sha256}


def _cache() -> Path:
    if named := os.environ.get("HF_HUB_CACHE"):
        return user_path(named)
    from huggingface_hub.constants import HF_HUB_CACHE  # here, not above: a build that can ask the Hub needs it not

    return Path(HF_HUB_CACHE)
