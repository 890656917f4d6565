"""`build-host.json`: what concerns the machine that built a bundle, kept out of the bundle's own bytes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sdbuild.bundle.document import write_json
from sdbuild.documents import DocumentError, read_json

_TOOLS = ("sdbuild", "coremltools", "diffusers", "huggingface_hub", "numpy", "torch", "transformers")


def write_build_host(path: Path, bundle_digest: str, actions: Mapping[str, Mapping[str, Any]]) -> None:
    """Write where, when and with what a bundle was built.

    Args:
        path: the file; it must lie outside of the directory whose bytes are compared between builds.
        bundle_digest: the bundle that this is about.
        actions: the name of each action that ran for it → its seconds, peak memory and the like.
    """
    document = {
        "bundle": f"sha256:{bundle_digest}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "tools": {name: found for name in _TOOLS if (found := _installed(name))},
        "actions": {name: dict(facts) for name, facts in actions.items()},
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_json(temporary, document)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_about(path: Path, bundle_digest: str) -> bool:
    """Whether a file is what `write_build_host` wrote about this bundle, whole."""
    try:
        document = read_json(path)
    except (OSError, DocumentError):
        return False
    return isinstance(document, dict) and document.get("bundle") == f"sha256:{bundle_digest}"


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
