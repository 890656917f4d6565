"""What a single file must satisfy beyond the types of its fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from sdbuild.recipe.diagnostics import Diagnostic, nearest
from sdbuild.recipe.document import Mapping, Scalar, Sequence, plain
from sdbuild.recipe.recipe import ModelKind, ModelReference, Recipe
from sdbuild.recipe.target import Target
from sdbuild.recipe.validation import Location, find, key_span

# What an override cannot change: these say which recipe it is, not how it is built for one target.
NOT_OVERRIDABLE = ("name", "description", "extends", "model", "targets", "overrides")


def check_name(name: str, path: Path, root: Mapping) -> Iterator[Diagnostic]:
    """A file is found by its name, so the name that it says must be the same."""
    if name != path.stem:
        span, _ = find(root, ("name",))
        yield Diagnostic(
            "name-mismatch",
            f"`{name}` in a file called `{path.name}`",
            span,
            f"write `name: {path.stem}`, or rename it",
        )


def check_recipe(
    recipe: Recipe, root: Mapping, rules: Collection[str], targets: Collection[str] | None
) -> Iterator[Diagnostic]:
    """Names that must be known and listed once, and revisions that only a Hub id has."""
    for field in ("components", "targets", "allow", "controlnets"):
        yield from _repeated(field, root)
    for index, rule in enumerate(recipe.allow):
        if rule not in rules:
            span, _ = find(root, ("allow", index))
            help_ = nearest(rule, rules) or f"the rules are: {', '.join(sorted(rules))}"
            yield Diagnostic("unknown-rule", f"`allow`: no rule `{rule}`", span, help_)
    if targets is not None:
        for index, target in enumerate(recipe.targets):
            if target not in targets:
                span, _ = find(root, ("targets", index))
                help_ = nearest(target, targets) or f"the targets are: {', '.join(sorted(targets))}"
                yield Diagnostic("unknown-target", f"`targets`: no target `{target}`", span, help_)
    yield from _revision(recipe.model, ("model",), root)
    for index, controlnet in enumerate(recipe.controlnets):
        yield from _revision(controlnet, ("controlnets", index), root)


def check_overrides(recipe: Recipe, root: Mapping) -> Iterator[Diagnostic]:
    """Overrides belong to a listed target and change only how it is built."""
    _, overrides = find(root, ("overrides",))
    if not isinstance(overrides, Mapping) or "overrides" not in root.entries:
        return
    for target, entry in overrides.entries.items():
        if target not in recipe.targets:
            help_ = (
                nearest(target, recipe.targets) or f"list it in `targets`, or remove it ({', '.join(recipe.targets)})"
            )
            yield Diagnostic(
                "unknown-target", f"`overrides`: `{target}` is not among the recipe's targets", entry.key, help_
            )
        if isinstance(entry.value, Mapping):
            for key, field in entry.value.entries.items():
                if key in NOT_OVERRIDABLE:
                    help_ = "say it at the top, or write another recipe that `extends` this one"
                    yield Diagnostic("not-overridable", f"`{key}` cannot differ for one target", field.key, help_)


def check_target(target: Target, root: Mapping) -> Iterator[Diagnostic]:
    """Figures that contradict each other."""
    if target.app_memory_gb > target.memory_gb:
        span, _ = find(root, ("app_memory_gb",))
        message = f"`app_memory_gb`: {target.app_memory_gb:g}, more than the device's {target.memory_gb:g}"
        yield Diagnostic("wrong-value", message, span, "an app gets a part of the device's memory")


def _repeated(field: str, root: Mapping) -> Iterator[Diagnostic]:
    _, node = find(root, (field,))
    if field not in root.entries or not isinstance(node, Sequence):
        return
    seen: list[object] = []
    for item in node.items:
        value = plain(item)
        if value in seen:
            shown = f"`{item.value}`" if isinstance(item, Scalar) else "this one"
            yield Diagnostic("repeated", f"`{field}`: {shown} again", item.span, "keep one")
        seen.append(value)


def _revision(reference: ModelReference, location: Location, root: Mapping) -> Iterator[Diagnostic]:
    if reference.revision is not None and reference.kind is not ModelKind.HUB:
        what = "a directory" if reference.kind is ModelKind.DIRECTORY else "a builtin checkpoint"
        yield Diagnostic(
            "revision",
            f"`revision` of {what}",
            key_span(root, (*location, "revision")),
            "remove it: only a Hub id has one",
        )
