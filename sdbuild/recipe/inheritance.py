"""`extends` and `overrides`: trees laid over trees, each node keeping the place where it was written.

Mappings merge key by key; lists and scalars replace what was there, and null takes a setting back to its default. Two
things follow what they belong to: a checkpoint with another `version` takes nothing over from the one that it replaces
(a revision is a commit of one repository), and overrides for targets that are no longer listed fall away.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import replace
from pathlib import Path

from sdbuild.paths import user_path
from sdbuild.recipe.catalogue import is_name, is_path, look_up
from sdbuild.recipe.diagnostics import Diagnostic, Span, nearest
from sdbuild.recipe.document import read_document
from sdbuild.recipe.tree import Entry, Mapping, Node, Scalar, Sequence, plain
from sdbuild.recipe.vocabulary import NAME_HELP

MAXIMUM_EXTENDS = 8
# Said by the recipe itself, never inherited by another one.
_OWN_KEYS = ("name", "description")


def merge(base: Mapping, over: Mapping) -> Mapping:
    """`over` laid over `base`; the result's own span is that of `over`."""
    entries = {key: over.entries.get(key, entry) for key, entry in base.entries.items()} | over.entries
    for key, entry in over.entries.items():
        below = base.entries.get(key)
        if below is None or not isinstance(below.value, Mapping) or not isinstance(entry.value, Mapping):
            continue
        if not _is_another_checkpoint(below.value, entry.value):
            entries[key] = Entry(entry.key, merge(below.value, entry.value))
    return Mapping(entries, over.span)


def _is_another_checkpoint(base: Mapping, over: Mapping) -> bool:
    """Whether a model reference names another checkpoint than the one it is laid over."""
    before, now = base.entries.get("version"), over.entries.get("version")
    return before is not None and now is not None and plain(before.value) != plain(now.value)


def _inherited(base: Mapping, own: Mapping) -> Mapping:
    """What a recipe takes over from the one that it extends."""
    entries = {key: entry for key, entry in base.entries.items() if key not in _OWN_KEYS}
    targets, overrides = own.entries.get("targets"), entries.get("overrides")
    if targets is not None and isinstance(targets.value, Sequence) and overrides is not None:
        listed = [plain(item) for item in targets.value.items]
        if isinstance(overrides.value, Mapping):
            kept = {target: entry for target, entry in overrides.value.entries.items() if target in listed}
            entries["overrides"] = Entry(overrides.key, replace(overrides.value, entries=kept))
    return replace(base, entries=entries)


def read_with_bases(path: Path, directories: Listed[Path]) -> tuple[Mapping | None, list[Diagnostic]]:
    """The recipe's tree laid over the trees that it extends, and every mistake in any of the files."""
    return _read(path, directories, ())


def _read(path: Path, directories: Listed[Path], children: tuple[Path, ...]) -> tuple[Mapping | None, list[Diagnostic]]:
    root, mistakes = read_document(path)
    if root is None or (entry := root.entries.get("extends")) is None:
        return root, mistakes
    own = replace(root, entries={key: value for key, value in root.entries.items() if key != "extends"})
    base_path = _locate(entry.value, path, directories, mistakes)
    if base_path is None:
        return None, mistakes
    chain = (*children, path)
    if any(base_path.resolve() == seen.resolve() for seen in chain):
        circle = " → ".join(seen.stem for seen in (*chain, base_path))
        mistakes.append(
            _mistake("extends-cycle", f"`extends` runs in a circle: {circle}", entry.value.span, "break it")
        )
        return None, mistakes
    if len(chain) > MAXIMUM_EXTENDS:
        text = f"more than {MAXIMUM_EXTENDS} recipes extend each other"
        mistakes.append(_mistake("extends-depth", text, entry.value.span, "extend a more basic recipe directly"))
        return None, mistakes
    base, base_mistakes = _read(base_path, directories, chain)
    if any(not _may_be_shown(each, path, directories) for each in base_mistakes):
        # It may be anybody's file, with anything in it.
        text = f"`extends`: {entry.value.span.text.partition(':')[2].strip()[:80]} is no recipe"
        base_mistakes = [_mistake("unknown-recipe", text, entry.value.span, "a recipe begins with `name:`")]
    mistakes += base_mistakes
    if base is None:
        return None, mistakes
    return merge(_inherited(base, own), own), mistakes


def _may_be_shown(mistake: Diagnostic, child: Path, directories: Listed[Path]) -> bool:
    """Whether a mistake's line may be quoted: its file lies where recipes do, or says that it is one."""
    if mistake.span is None:
        return True
    path = mistake.span.path.resolve()
    if any(path.is_relative_to(folder.resolve()) for folder in (child.parent, *directories)):
        return True
    root, _ = read_document(path)
    return root is not None and "name" in root.entries


def _locate(node: Node, path: Path, directories: Listed[Path], mistakes: list[Diagnostic]) -> Path | None:
    """The file that `extends` names: a recipe's name, or a path from the folder of the file that says it."""
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        mistakes.append(
            _mistake(
                "wrong-value", "`extends`: expected one recipe's name or path", node.span, "write `extends: sd15-ios`"
            )
        )
        return None
    if is_path(node.value):
        found = path.parent / user_path(node.value)
        if found.suffix not in (".yaml", ".yml") or not found.is_file():
            mistakes.append(_mistake("unknown-recipe", f"`extends`: no file `{node.value}`", node.span, _beside(found)))
            return None
        return found
    if not is_name(node.value):
        mistakes.append(_mistake("wrong-value", f"`extends`: `{node.value}` is not a name", node.span, NAME_HELP))
        return None
    return look_up(node.value, [path.parent, *directories], mistakes, node.span, "`extends`: no recipe")


def _mistake(code: str, message: str, span: Span, help_: str) -> Diagnostic:
    return Diagnostic(code, message, span, help_)


def _beside(path: Path) -> str:
    others = [other.name for other in sorted(path.parent.glob("*.yaml"))]
    return nearest(path.name, others) or "the path starts at the folder of this file"
