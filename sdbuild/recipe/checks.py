"""What a single file must satisfy beyond the types of its fields.

These checks read the tree, not the validated value, so that they report their mistakes beside those of the types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from sdbuild.checkpoints.single_file import SUFFIXES
from sdbuild.recipe.diagnostics import Diagnostic, nearest
from sdbuild.recipe.references import library_of
from sdbuild.recipe.tokens import EMBEDDING_SUFFIXES
from sdbuild.recipe.tree import Mapping, Node, Scalar, Sequence, plain

# What an override cannot change: these say which recipe it is, not how it is built for one target.
NOT_OVERRIDABLE = (
    *("name", "description", "extends", "model", "tokenizer", "vae", "denoiser", "loras", "textual_inversions"),
    *("targets", "overrides"),
)


def check_name(root: Mapping, path: Path) -> Iterator[Diagnostic]:
    """A file is found by its name, so the name that it says must be the same."""
    node = _value(root, "name")
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value != path.stem:
        message = f"`{node.value}` in a file called `{path.name}`"
        yield Diagnostic("name-mismatch", message, node.span, f"write `name: {path.stem}`, or rename the file")


def check_recipe(root: Mapping, rules: Collection[str], targets: Collection[str] | None) -> Iterator[Diagnostic]:
    """Names that must be known and listed once, and revisions that only a Hub id has."""
    listed = ("controlnets", "t2i_adapters", "loras", "textual_inversions")
    for field in ("components", "targets", "allow", "sizes", *listed):
        yield from _repeated(field, root)
    yield from _unknown("allow", root, rules, "rule", "the rules are listed in docs/reference/preflight.md")
    if targets is not None:
        yield from _unknown("targets", root, targets, "target", f"the targets are: {', '.join(sorted(targets))}")
    references = [_value(root, key) for key in ("model", "tokenizer", "vae", "refiner")]
    references += [item for key in listed for item in _items(root, key)]
    for model in references:
        if isinstance(model, Mapping):
            yield from _needless(model)


def check_overrides(root: Mapping) -> Iterator[Diagnostic]:
    """Overrides belong to a listed target and change only how it is built."""
    overrides = _value(root, "overrides")
    listed = [str(plain(item)) for item in _items(root, "targets")]
    if not isinstance(overrides, Mapping):
        return
    for target, entry in overrides.entries.items():
        if listed and target not in listed:
            help_ = nearest(target, listed) or f"list it in `targets`, or remove it; listed are: {', '.join(listed)}"
            message = f"`overrides`: `{target}` is not among the recipe's targets"
            yield Diagnostic("unknown-target", message, entry.key, help_)
        if isinstance(entry.value, Mapping):
            for key, field in entry.value.entries.items():
                if key in NOT_OVERRIDABLE:
                    help_ = "say it at the top, or write another recipe that `extends` this one"
                    yield Diagnostic("not-overridable", f"`{key}` cannot differ for one target", field.key, help_)


def check_target(root: Mapping) -> Iterator[Diagnostic]:
    """Figures that contradict each other."""
    app, device = _value(root, "app_memory_gb"), _value(root, "memory_gb")
    if isinstance(app, Scalar) and isinstance(device, Scalar):
        match app.value, device.value:
            case (int() | float()) as some, (int() | float()) as most if some > most:
                message = f"`app_memory_gb`: {some:g}, more than the device's {most:g}"
                yield Diagnostic("wrong-value", message, app.span, "an app gets a part of the device's memory")
    for older, newer in (("shipped_os_version", "os_version"), ("os_version", "newest_os_version")):
        first, second = _version(root, older), _version(root, newer)
        if first is not None and second is not None and _numbers(second) < _numbers(first)[: len(_numbers(second))]:
            message = f"`{newer}`: {second.value}, older than `{older}`, which is {first.value}"
            yield Diagnostic("wrong-value", message, second.span, f"write {first.value} or a newer one")


def _version(root: Mapping, key: str) -> Scalar | None:
    """A version of a system, where one is written."""
    node = _value(root, key)
    written = isinstance(node, Scalar) and isinstance(node.value, str) and node.value.replace(".", "").isdecimal()
    return node if isinstance(node, Scalar) and written else None


def _numbers(version: Scalar) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version.value).split(".") if part)


def _value(root: Mapping, key: str) -> Node | None:
    entry = root.entries.get(key)
    return entry.value if entry is not None else None


def _items(root: Mapping, key: str) -> tuple[Node, ...]:
    node = _value(root, key)
    return node.items if isinstance(node, Sequence) else ()


def _repeated(field: str, root: Mapping) -> Iterator[Diagnostic]:
    seen: list[object] = []
    for item in _items(root, field):
        value = plain(item)
        if value in seen:
            shown = f"`{value}`" if isinstance(item, Scalar) else "the same"
            yield Diagnostic("repeated", f"`{field}`: {shown} again", item.span, "keep one")
        seen.append(value)


def _unknown(field: str, root: Mapping, known: Collection[str], kind: str, help_: str) -> Iterator[Diagnostic]:
    for item in _items(root, field):
        if isinstance(item, Scalar) and isinstance(item.value, str) and item.value not in known:
            message = f"`{field}`: no {kind} `{item.value}`"
            yield Diagnostic(f"unknown-{kind}", message, item.span, nearest(item.value, known) or help_)


def _needless(model: Mapping) -> Iterator[Diagnostic]:
    """What only a Hub id has."""
    version = _value(model, "version")
    if not isinstance(version, Scalar) or not isinstance(version.value, str):
        return
    is_builtin = version.value.startswith("builtin:")
    is_named = library_of(version.value) is not None
    if is_builtin or is_named or version.value.startswith((".", "/", "~")):
        is_file = is_named or version.value.endswith((*SUFFIXES, *EMBEDDING_SUFFIXES))
        what = "a builtin checkpoint" if is_builtin else "a file" if is_file else "a directory"
        for key in ("revision", "file"):
            if (entry := model.entries.get(key)) is not None:
                help_ = "remove it: only a Hub id has one"
                if key == "file" and not is_builtin:
                    help_ = "write the path of the file itself as the version"
                yield Diagnostic(key, f"`{key}` of {what}", entry.key, help_)
