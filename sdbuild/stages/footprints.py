"""What the models of an artifact need in memory: counted in packages, and handed on beside compiled models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdbuild.bundle.layout import find_models
from sdbuild.interface.swift.files import PACKAGE

FILE = "footprints.json"

Footprints = dict[str, dict[str, Any] | None]
"""Model's name without suffix → the fields of `sdbuild.coreml.footprint.Footprint`; None for what is no ML Program."""


def write_footprints(packages: Sequence[Path], out: Path) -> None:
    """Write what each package needs to `out/footprints.json`."""
    found = {package.stem: _count(package) for package in packages}
    (out / FILE).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_footprints(artifact: Path) -> Footprints:
    """What each model of an artifact needs: as its file says, or counted in its packages."""
    if (artifact / FILE).is_file():
        found: Footprints = json.loads((artifact / FILE).read_bytes())
        return found
    return {path.stem: _count(path) if path.suffix == PACKAGE else None for path in find_models(artifact)}


def _count(package: Path) -> dict[str, Any] | None:
    from sdbuild.coreml.footprint import footprint
    from sdbuild.coreml.package import Package
    from sdbuild.coreml.program import ProgramError

    try:
        return asdict(footprint(Package.open(package)))
    except ProgramError:
        return None
