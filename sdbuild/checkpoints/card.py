"""What a checkpoint says of itself: author, license and version, from its card, license file and configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.documents import DocumentError, read_bytes, read_json

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_HUB_NAME = re.compile(r"(?P<owner>[A-Za-z0-9][\w.-]*)/[A-Za-z0-9][\w.-]*")
# The model card's own way to say that the license has no short name.
_OTHER = "other"
_LONGEST_TITLE = 200
_LONGEST_FRONT_MATTER = 200_000  # characters; results of evaluations in the largest known ones take some 50,000
_DEEPEST = 32
_MOST_EVENTS = 50_000


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
        found = _FRONT_MATTER.search(read_bytes(path).decode("utf-8").replace("\r\n", "\n"))
        content = yaml.safe_load(found[1]) if found and _is_modest(found[1]) else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_modest(text: str) -> bool:
    """Whether YAML is of a size and depth that a card's could have, and without aliases, which could multiply it."""
    import yaml

    depth = 0
    if len(text) > _LONGEST_FRONT_MATTER:
        return False
    for events, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST or events > _MOST_EVENTS:
            return False
    return True


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
        try:
            lines = read_bytes(path).decode("utf-8", "replace").splitlines()
        except (OSError, DocumentError):
            continue
        titles = [line.strip(" #*\t") for line in lines if line.strip(" #*\t")]
        if titles:
            return titles[0][:_LONGEST_TITLE]
    return ""


def _name(directory: Path) -> str:
    """`owner/name` by the configuration; paths of somebody's own machine are no names."""
    for file in ("model_index.json", "config.json"):
        try:
            content = read_json(directory / file)
        except (OSError, DocumentError):
            continue
        name = content.get("_name_or_path") if isinstance(content, dict) else None
        if isinstance(name, str) and _HUB_NAME.fullmatch(name):
            return name
    return ""
