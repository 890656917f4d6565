"""Settings of a recipe from the command line, as `quantization.unet=4`: laid over its file, for one run.

A setting is read as the YAML that it stands for, so that its value means what it would mean in the file and mistakes
point at it. It wins over the file, over what the file extends, and over what the file says for single targets.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import replace
from pathlib import Path

from sdbuild.recipe.diagnostics import Diagnostic
from sdbuild.recipe.document import parse
from sdbuild.recipe.inheritance import merge
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.tree import Entry, Mapping

PLACE = Path("command line")
"""What diagnostics call the file of such a setting."""

Setting = tuple[str, str]

# Which recipe it is, and for what: said by other words of a command line, or by a recipe of its own.
_FIXED = ("name", "description", "extends", "targets", "overrides")
FIELDS: tuple[str, ...] = tuple(field for field in Recipe.model_fields if field not in _FIXED)
"""The fields of a recipe that a command line may set."""


def is_setting(name: str) -> bool:
    """Whether a word `name=value` sets something in the recipe."""
    return name.partition(".")[0] in FIELDS


def settings_tree(settings: Listed[Setting]) -> tuple[Mapping | None, list[Diagnostic]]:
    """The settings as one tree, and every mistake in their YAML; None where there are none.

    Args:
        settings: dotted name and value of each, in the order of the command line.
    """
    tree: Mapping | None = None
    mistakes: list[Diagnostic] = []
    for name, value in settings:
        first, *rest = name.split(".")
        text = f"{first}: " + "".join(f"{{{part}: " for part in rest) + value + "}" * len(rest)
        root, found = parse(text, PLACE)
        mistakes += found
        if root is not None:
            tree = root if tree is None else merge(tree, root)
    return tree, mistakes


def lay_over(root: Mapping, settings: Mapping) -> Mapping:
    """A recipe's tree with the settings over it, and over what it says for single targets."""
    merged = merge(root, settings)
    overrides = merged.entries.get("overrides")
    if overrides is None or not isinstance(overrides.value, Mapping):
        return replace(merged, span=root.span)
    targets = {
        target: Entry(entry.key, merge(entry.value, _named_in(settings, entry.value)))
        if isinstance(entry.value, Mapping)
        else entry
        for target, entry in overrides.value.entries.items()
    }
    entries = {**merged.entries, "overrides": Entry(overrides.key, replace(overrides.value, entries=targets))}
    return Mapping(entries, root.span)


def _named_in(settings: Mapping, override: Mapping) -> Mapping:
    """The settings whose fields an override names too."""
    return replace(settings, entries={key: value for key, value in settings.entries.items() if key in override.entries})
