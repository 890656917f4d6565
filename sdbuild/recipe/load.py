"""Recipes and targets from their files, with every mistake of a file reported at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdbuild.paths import user_path
from sdbuild.recipe.catalogue import is_name, is_path, look_up
from sdbuild.recipe.checks import check_name, check_overrides, check_recipe, check_target
from sdbuild.recipe.command_line import Setting, lay_over, settings_tree
from sdbuild.recipe.diagnostics import Diagnostic, RecipeError
from sdbuild.recipe.document import read_document
from sdbuild.recipe.inheritance import merge, read_with_bases
from sdbuild.recipe.lock import Lock, read_lock
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.references import Reference
from sdbuild.recipe.rules.registry import RULES
from sdbuild.recipe.target import Target
from sdbuild.recipe.tree import Mapping, Node, Scalar
from sdbuild.recipe.tree import Sequence as SequenceNode
from sdbuild.recipe.validation import validate
from sdbuild.recipe.vocabulary import NAME_HELP, AttentionImplementation

# Mistakes of a value's spelling, after which its type says nothing.
_REFUSED = ("ambiguous-scalar", "unknown-alias", "recursive-alias", "tag")


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A valid recipe and where each of its lines was written.

    Attributes:
        recipe: what the file says, with what it extends; overrides not yet applied.
        path: the recipe's own file.
        root: its tree, `extends` resolved; each node has its file, line and column.
        folders: for each local directory that the recipe names, the folder of the file that names it.
        lock: what its repositories are pinned to; None where there is no lock.
        settings: what the command line set in it.
    """

    recipe: Recipe
    path: Path
    root: Mapping
    folders: dict[str, Path]
    lock: Lock | None = None
    settings: tuple[Setting, ...] = ()

    def directory_of(self, reference: Reference) -> Path:
        """The absolute path of a local checkpoint, read from the folder of the file that names it."""
        return self.path_of(reference.version)

    def path_of(self, version: str) -> Path:
        """The absolute path of a local file or folder that the recipe names as some `version`."""
        path = user_path(version)
        return (self.folders[version] / path).resolve() if not path.is_absolute() else path


@dataclass(frozen=True, slots=True)
class LoadedTarget:
    """A valid target and where each of its lines was written."""

    target: Target
    path: Path
    root: Mapping


def load_recipe(
    reference: str,
    directories: Sequence[Path],
    *,
    targets: Collection[str] | None = None,
    settings: Sequence[Setting] = (),
) -> LoadedRecipe:
    """Load a recipe with everything that it extends, and validate its overrides too.

    Args:
        reference: a recipe's name, or a path to its YAML file.
        directories: where names are looked up, the first match wins.
        targets: the names of all known targets, so that an unknown one is reported here; None skips that.
        settings: what the command line sets in the recipe.

    Raises:
        RecipeError: with every mistake in the files, and in the settings.
    """
    path = _file_of(reference, directories, "recipe")
    root, mistakes = read_with_bases(path, directories)
    if root is None:
        raise RecipeError(mistakes)
    over, found_in_settings = settings_tree(settings)
    mistakes += found_in_settings
    if over is not None:
        root = lay_over(root, over)
    mistakes += [*check_name(root, path), *check_recipe(root, RULES, targets), *check_overrides(root)]
    recipe, found = validate(Recipe, root)
    mistakes += found
    for overridden in _overridden(root):
        mistakes += [*validate(Recipe, overridden)[1], *check_recipe(overridden, RULES, None)]
    folders = _folders(root, mistakes)
    if recipe is None or mistakes:
        raise RecipeError(_without_consequences(mistakes))
    return LoadedRecipe(recipe, path, root, folders, read_lock(path), tuple(settings))


def load_target(reference: str, directories: Sequence[Path]) -> Target:
    """Load a target by name or path.

    Raises:
        RecipeError: with every mistake in the file.
    """
    return load_target_with_positions(reference, directories).target


def load_target_with_positions(reference: str, directories: Sequence[Path]) -> LoadedTarget:
    """As `load_target`, with the tree for diagnostics that point into the target's file."""
    path = _file_of(reference, directories, "target")
    root, mistakes = read_document(path)
    if root is None:
        raise RecipeError(mistakes)
    mistakes += [*check_name(root, path), *check_target(root)]
    target, found = validate(Target, root)
    mistakes += found
    if target is None or mistakes:
        raise RecipeError(_without_consequences(mistakes))
    return LoadedTarget(target, path, root)


def resolve_for_target(loaded: LoadedRecipe, target: Target) -> Recipe:
    """The recipe as it is built for one target: its override merged in, all decided that it leaves to the target.

    The result names that target alone and has no overrides left.

    Raises:
        RecipeError: the target is not among the recipe's.
    """
    if target.name not in loaded.recipe.targets:
        listed = ", ".join(loaded.recipe.targets)
        message = f"`{target.name}` is not a target of the recipe `{loaded.recipe.name}`"
        raise RecipeError([Diagnostic("unknown-target", message, None, f"its targets are: {listed}")])
    recipe, mistakes = validate(Recipe, tree_for(loaded.root, target.name))
    if recipe is None:
        raise RecipeError(mistakes)
    compute_unit = recipe.compute_unit or target.compute_unit
    attention = recipe.attention_implementation or target.attention_implementation
    if recipe.attention_implementation is None and compute_unit is not target.compute_unit:
        attention = AttentionImplementation.SPLIT_EINSUM
        if not compute_unit.may_use_neural_engine:
            attention = AttentionImplementation.ORIGINAL
    decided = {
        "attention_implementation": attention,
        "compute_unit": compute_unit,
        "reduce_memory": target.reduce_memory if recipe.reduce_memory is None else recipe.reduce_memory,
    }
    return recipe.model_copy(update={**decided, "targets": (target.name,), "overrides": {}})


def tree_for(root: Mapping, target: str) -> Mapping:
    """The recipe's tree with the override for one target laid over it, and without the overrides themselves."""
    bare = replace(root, entries={key: entry for key, entry in root.entries.items() if key != "overrides"})
    if (entry := root.entries.get("overrides")) is None or not isinstance(entry.value, Mapping):
        return bare
    override = entry.value.entries.get(target)
    if override is None or not isinstance(override.value, Mapping):
        return bare
    return replace(merge(bare, override.value), span=root.span)


def _overridden(root: Mapping) -> Iterator[Mapping]:
    """The recipe's tree as it is for each target that an override names."""
    entry = root.entries.get("overrides")
    if entry is not None and isinstance(entry.value, Mapping):
        yield from (tree_for(root, target) for target in entry.value.entries)


def _file_of(reference: str, directories: Sequence[Path], kind: str) -> Path:
    mistakes: list[Diagnostic] = []
    if is_path(reference):
        path = user_path(reference)
        if path.is_file():
            return path
        mistakes.append(
            Diagnostic("unknown-name", f"no file `{reference}`", None, f"name a {kind}, or the path of its YAML file")
        )
    elif not is_name(reference):
        mistakes.append(Diagnostic("unknown-name", f"`{reference}` is not the name of a {kind}", None, NAME_HELP))
    elif (found := look_up(reference, directories, mistakes, None, f"no {kind}")) is not None:
        return found
    raise RecipeError(mistakes)


def _folders(root: Mapping, mistakes: list[Diagnostic]) -> dict[str, Path]:
    """The folder from which each local checkpoint's path is read."""
    folders: dict[str, Path] = {}
    for node in _versions(root):
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            continue
        folder = node.span.path.parent.absolute()
        if folders.setdefault(node.value, folder).resolve() != folder.resolve() and node.value.startswith("."):
            message = f"`{node.value}` is written in two folders and means two places"
            mistakes.append(Diagnostic("ambiguous-path", message, node.span, "write an absolute path"))
    return folders


def _versions(node: Node) -> Iterator[Node]:
    match node:
        case Mapping(entries=entries):
            for key, entry in entries.items():
                if key == "version":
                    yield entry.value
                else:
                    yield from _versions(entry.value)
        case SequenceNode(items=items):
            for item in items:
                yield from _versions(item)


def _without_consequences(mistakes: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic a place: a value that YAML already refused is not reported again for its type."""
    refused = {mistake.span for mistake in mistakes if mistake.code in _REFUSED}
    return [mistake for mistake in mistakes if mistake.span not in refused or mistake.code in _REFUSED]
