"""`build-host.json`: what concerns the machine that built a bundle, kept out of the bundle's own bytes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sdbuild.bundle.document import write_json

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
    write_json(path, document)


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
