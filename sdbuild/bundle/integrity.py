"""Whether a bundle is byte for byte what its build made: every file read, compared with what `bundle.json` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.digests import file_digest, tree_digest, tree_size
from sdbuild.bundle.document import bundle_digest
from sdbuild.bundle.host import is_about
from sdbuild.bundle.layout import BUILD_HOST, DOCUMENT, RESOURCES
from sdbuild.documents import DocumentError, read_json
from sdbuild.paths import is_relative

Difference = tuple[str, str]
"""A file's path in the bundle, and what is wrong with it."""


def differences(bundle: Path) -> Iterator[Difference]:
    """How a bundle differs from the one that was built."""
    try:
        document = read_json(bundle / DOCUMENT)
        named = _named(document)
    except (OSError, DocumentError, KeyError, TypeError, AttributeError, ValueError) as error:
        yield DOCUMENT, f"cannot be read ({error})"
        return
    if not was_built_here(bundle):
        yield DOCUMENT, f"is not the one that was built here, by {bundle.name}.{BUILD_HOST}"
    resources = bundle / RESOURCES
    yield from ((f"{RESOURCES}/{name}", "is missing") for name in sorted(named) if not (resources / name).exists())
    yield from ((f"{RESOURCES}/{name}", what) for name, what in changed(document, resources))
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(resources).as_posix() if path.is_relative_to(resources) else ""
        if path.is_dir() or path == bundle / DOCUMENT or any(f"{name}/".startswith(f"{own}/") for own in named):
            continue
        yield path.relative_to(bundle).as_posix(), "was not built"


def changed(document: Mapping[str, Any], resources: Path) -> Iterator[Difference]:
    """The models and tokenizer files that are there with another content than the document names."""
    for entry in document["models"].values():
        path = resources / entry["file"]
        if not path.exists():
            continue
        if entry["bytes"] != (size := tree_size(path)):
            yield entry["file"], f"{size} bytes, {DOCUMENT} says {entry['bytes']}"
        elif entry["digest"] != f"sha256:{tree_digest(path)}":
            yield entry["file"], f"its content is not the one that {DOCUMENT} names"
    for name, digest in document.get("tokenizer", {}).get("files", {}).items():
        path = resources / name
        if path.is_file() and digest != f"sha256:{file_digest(path)}":
            yield name, f"its content is not the one that {DOCUMENT} names"


def was_built_here(bundle: Path) -> bool:
    """Whether `bundle.json` is the one of which the build left a note beside the bundle; True without a note."""
    host = bundle.with_name(f"{bundle.name}.{BUILD_HOST}")
    return not host.is_file() or not (bundle / DOCUMENT).is_file() or is_about(host, bundle_digest(bundle))


def _named(document: Mapping[str, Any]) -> set[str]:
    """The files, and the folders of models, that the document names."""
    models = [str(entry["file"]) for entry in document["models"].values()]
    names = {*models, *document.get("tokenizer", {}).get("files", {})}
    if strange := [name for name in names if not is_relative(name)]:
        raise ValueError(f"it names {strange[0]!r}, which leads out of the bundle")
    return names
