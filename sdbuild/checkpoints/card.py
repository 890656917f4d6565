"""What a checkpoint says of itself: author, license and version, from its card, license file and configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_HUB_NAME = re.compile(r"(?P<owner>[A-Za-z0-9][\w.-]*)/[A-Za-z0-9][\w.-]*")
# The model card's own way to say that the license has no short name.
_OTHER = "other"
_LONGEST_TITLE = 200


@dataclass(frozen=True)
class Card:
    """Facts for a model's metadata; empty where the checkpoint does not say.

    Attributes:
        author: the owner of the repository that the configuration names.
        license: a license's identifier, or its name and address.
        version: the repository that the configuration names.
    """

    author: str = ""
    license: str = ""
    version: str = ""


def read_card(directory: Path) -> Card:
    """Read what the files of a checkpoint, or of one component of it, say; nothing is an error.

    Looked at are `README.md` (its YAML front matter, as the Hub defines it for model cards), `LICENSE*`, and
    `_name_or_path` of `model_index.json` and `config.json`.
    """
    front = _front_matter(directory / "README.md")
    name = _name(directory)
    owner = _HUB_NAME.fullmatch(name)
    return Card(
        author=str(front.get("author") or (owner["owner"] if owner else "")),
        license=_license(front) or _license_title(directory),
        version=name,
    )


def _front_matter(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = _FRONT_MATTER.search(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _license(front: Mapping[str, Any]) -> str:
    name, link = str(front.get("license") or ""), str(front.get("license_link") or "")
    if name == _OTHER and front.get("license_name"):
        name = str(front["license_name"])
    if not name:
        return ""
    return f"{name} ({link})" if link else name


def _license_title(directory: Path) -> str:
    """The first line of the license file: licenses begin with their names."""
    for path in sorted(directory.glob("LICENSE*")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        titles = [line.strip(" #*\t") for line in lines if line.strip(" #*\t")]
        if titles:
            return titles[0][:_LONGEST_TITLE]
    return ""


def _name(directory: Path) -> str:
    """`owner/name` by the configuration; paths of somebody's own machine are no names."""
    for file in ("model_index.json", "config.json"):
        try:
            content = json.loads((directory / file).read_bytes())
        except (OSError, ValueError):
            continue
        name = content.get("_name_or_path") if isinstance(content, dict) else None
        if isinstance(name, str) and _HUB_NAME.fullmatch(name):
            return name
    return ""
