"""`bundle.json` against what is really there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.bundle.features import Feature, Interface
from sdbuild.bundle.integrity import changed
from sdbuild.bundle.linter.client import lint_client
from sdbuild.bundle.linter.compression import lint_compression
from sdbuild.bundle.linter.contents import Contents
from sdbuild.bundle.linter.models import Sizes
from sdbuild.bundle.linter.tokenizer import lint_new_tokens
from sdbuild.bundle.linter.violation import Violation
from sdbuild.bundle.schema import mistakes
from sdbuild.families import FAMILIES
from sdbuild.interface.swift.files import COMPILED
from sdbuild.interface.swift.rows import CHUNKED, CONDITIONERS

_WHERE = "bundle.json"
_KINDS = {family.value: described.pipeline for family, described in FAMILIES.items()}


def lint_document(
    document: Mapping[str, Any], resources: Path, contents: Contents, sizes: Sizes
) -> Iterator[Violation]:
    """Whether the document tells the truth; a malformed one is a violation, no error."""
    for mistake in mistakes(document):
        yield Violation("document", _WHERE, mistake)
    try:
        yield from _lint_models(document["models"], contents)
        yield from (Violation("document-digest", name, what) for name, what in changed(document, resources))
        yield from lint_compression(document["models"], contents)
        yield from _lint_facts(document, contents, sizes)
        yield from lint_new_tokens(resources, document.get("textual_inversions", ()))
        yield from lint_client(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        yield Violation("document", _WHERE, f"malformed: {error!r}")


def _lint_models(models: Mapping[str, Any], contents: Contents) -> Iterator[Violation]:
    for name in sorted({*models, *contents.paths}):
        where = f"{_WHERE}, models, {name}"
        if name not in contents.paths:
            yield Violation("document-models", where, "listed, but not in Resources")
        elif name not in models:
            yield Violation("document-models", where, "in Resources, but not listed")
        elif models[name]["file"] != name + contents.paths[name].suffix:
            yield Violation("document-models", where, f"the file is {name}{contents.paths[name].suffix}")
        elif (interface := contents.interfaces.get(name)) and not _same(models[name], interface):
            yield Violation("document-models", where, "other inputs or outputs than the model has")


def _same(entry: Mapping[str, Any], interface: Interface) -> bool:
    def facts(features: tuple[Feature, ...]) -> list[Any]:
        return [{"name": f.name, "shape": list(f.shape), "dtype": f.dtype} for f in features]

    return [entry["inputs"], entry["outputs"]] == [facts(interface.inputs), facts(interface.outputs)]


def _lint_facts(document: Mapping[str, Any], contents: Contents, sizes: Sizes) -> Iterator[Violation]:
    compiled = any(path.suffix == COMPILED for path in contents.paths.values())
    # The refiner's chunks follow the base's.
    chunked = any(f"{unet}Chunk1" in contents.paths for unet in CHUNKED if unet != "UnetRefiner")
    facts: dict[str, tuple[Any, Any]] = {
        "compiled": (document["compiled"], compiled),
        "family": (_KINDS.get(document["family"], document["family"]), contents.kind),
        "latent.height": (document["latent"]["height"], sizes.get("h")),
        "latent.width": (document["latent"]["width"], sizes.get("w")),
        "image.height": (document["image"]["height"], sizes.get("H")),
        "image.width": (document["image"]["width"], sizes.get("W")),
        "text_sequence_length": (document["text_sequence_length"], sizes.get("L")),
        "unet.batch": (document["unet"]["batch"], sizes.get("B")),
        "unet.chunks": (document["unet"]["chunks"], 2 if chunked else 1),
    }
    for each in CONDITIONERS:
        said = {entry["name"] for entry in document.get(each.document, ())}
        names = {name.removeprefix(each.folder) for name in contents.paths if name.startswith(each.folder)}
        facts[each.document] = (said, names)
    for key, (said, found) in facts.items():
        if found is not None and said != found:
            yield Violation("document-facts", f"{_WHERE}, {key}", f"says {_text(said)}, the models say {_text(found)}")


def _text(value: object) -> str:
    return ", ".join(sorted(value)) or "none" if isinstance(value, set) else str(value)
