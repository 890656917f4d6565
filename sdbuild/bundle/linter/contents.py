"""What lies in a Resources directory: its models, the files that are loaded, and what nobody asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdbuild.bundle.errors import BundleError
from sdbuild.bundle.features import Interface, read_interface
from sdbuild.bundle.layout import find_models
from sdbuild.bundle.linter.violation import Violation
from sdbuild.interface.contract import Row
from sdbuild.interface.swift.files import COMPILED, MERGES, PACKAGE, T5_TOKENIZER, VOCABULARY
from sdbuild.interface.swift.rows import CHUNKED, CONDITIONERS, PipelineKind, kind_of, row_of

T5 = "TextEncoderT5"
_CHUNKS = ("Chunk1", "Chunk2")


@dataclass(frozen=True)
class Contents:
    """The models of a bundle.

    Attributes:
        kind: the pipeline that they are for.
        paths: path in Resources without suffix → the model.
        interfaces: the same for every model that can be read.
        extensions: what the bundle says that its app feeds beyond the contract.
    """

    kind: PipelineKind
    paths: dict[str, Path]
    interfaces: dict[str, Interface] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    def row(self, name: str) -> Row | None:
        """The interface that a model must have; None for a model that nothing loads."""
        return row_of(self.kind, name, self.extensions)

    def pair(self, name: str) -> tuple[Interface, Interface] | None:
        """The interfaces of a model's two chunks, when both can be read."""
        first, second = (self.interfaces.get(name + chunk) for chunk in _CHUNKS)
        return (first, second) if first and second else None

    def has(self, name: str) -> bool:
        """Whether a model is there, whole or as a pair."""
        return name in self.paths or all(name + chunk in self.paths for chunk in _CHUNKS)


def scan(resources: Path, extensions: frozenset[str] = frozenset()) -> tuple[Contents, list[Violation]]:
    """Find and read the models, and say what is wrong with the directory's contents."""
    paths: dict[str, Path] = {}
    violations: list[Violation] = []
    for path in find_models(resources):
        name = path.relative_to(resources).with_suffix("").as_posix()
        if name in paths:
            violations.append(Violation("mixed-forms", name, "there as a package and compiled"))
        paths[name] = path
    suffixes = {path.suffix for path in paths.values()}
    if suffixes == {PACKAGE, COMPILED} and not violations:
        compiled = ", ".join(sorted(name for name, path in paths.items() if path.suffix == COMPILED))
        violations.append(Violation("mixed-forms", "Resources", f"only {compiled} compiled"))
    contents = Contents(kind_of(set(paths)), paths, extensions=extensions)
    for name, path in paths.items():
        try:
            contents.interfaces[name] = read_interface(path)
        except BundleError as error:
            violations.append(Violation("unreadable-model", path.name, str(error)))
    violations += _lint_names(contents)
    violations += _lint_files(resources, contents)
    return contents, violations


def _lint_names(contents: Contents) -> Iterator[Violation]:
    for name in contents.paths:
        whole = name[:-6] if name.endswith(_CHUNKS) else ""
        if whole in CHUNKED and contents.row(whole):
            (other,) = (whole + chunk for chunk in _CHUNKS if not name.endswith(chunk))
            if other not in contents.paths:
                yield Violation("incomplete-chunks", name, f"{other} is missing")
            elif whole in contents.paths and name.endswith(_CHUNKS[0]):
                yield Violation("shadowed-model", whole, f"never loaded, because {name} and {other} are there")
        elif contents.row(name) is None:
            yield Violation("unknown-file", name, f"no model of this name is loaded by the {contents.kind} pipeline")


def _lint_files(resources: Path, contents: Contents) -> Iterator[Violation]:
    known = {VOCABULARY, MERGES, *(T5_TOKENIZER if contents.kind == "sd3" else ())}
    models = set(contents.paths.values())
    folders = [folder for each in CONDITIONERS if (folder := resources / each.folder.rstrip("/")).is_dir()]
    inside = [path for folder in folders for path in folder.iterdir()]
    for path in sorted([*resources.iterdir(), *inside]):
        if path not in models and path not in folders and not (path.parent == resources and path.name in known):
            yield Violation("unknown-file", path.relative_to(resources).as_posix(), "nothing loads it")
    if contents.kind == "sd3":
        present = [T5] if T5 in contents.paths else []
        present += [name for name in T5_TOKENIZER if (resources / name).is_file()]
        if 0 < len(present) < 3:
            yield Violation("t5-files", ", ".join(present), f"{T5}, {' and '.join(T5_TOKENIZER)} go together")
