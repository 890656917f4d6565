"""From a tree of nodes to a pydantic value, with every error of pydantic's turned into a diagnostic at its node."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sdbuild.recipe.diagnostics import Diagnostic, Span, nearest, one_of
from sdbuild.recipe.tree import Mapping, Node, Scalar, Sequence, plain
from sdbuild.recipe.vocabulary import NAME_HELP, NAME_PATTERN

Value = TypeVar("Value", bound=BaseModel)
Location = tuple[int | str, ...]


def validate(model: type[Value], root: Mapping) -> tuple[Value | None, list[Diagnostic]]:
    """The value that the tree spells, or None and all that is wrong with it.

    JSON's strict rules apply: numbers are not read out of text, and truth values are not numbers.
    """
    try:
        return model.model_validate_json(json.dumps(_data(model, root)), strict=True), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [_diagnose(model, root, detail) for detail in details if not _is_consequence(root, detail)]


def find(root: Node, location: Location) -> tuple[Span, Node]:
    """The node at a location, or the deepest one on the way there; and the span that shows it best."""
    node, span = root, _opening(root)
    for step in location:
        match node, step:
            case Mapping(entries=entries), str() if step in entries:
                node, span = entries[step].value, entries[step].value.span
            case Sequence(items=items), int() if step < len(items):
                node, span = items[step], items[step].span
            case _:
                break
    return span, node


def key_span(root: Node, location: Location) -> Span:
    """Where the last key of the location is written; its parent's place where it is not written."""
    span, parent = find(root, location[:-1])
    if location and isinstance(parent, Mapping) and (entry := parent.entries.get(str(location[-1]))) is not None:
        return entry.key
    return span


def dotted(location: Location) -> str:
    """A location as people write it: ``controlnets[0].revision``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")


def _is_consequence(root: Mapping, detail: Any) -> bool:
    """Whether a list is called too short only because its items are wrong, each of which is reported."""
    _, node = find(root, tuple(detail["loc"]))
    return detail["type"] == "too_short" and isinstance(node, Sequence) and bool(node.items)


def _data(model: type[BaseModel] | None, node: Node) -> Any:
    """As `plain`, without the known keys that say null: these take their defaults."""
    if model is None or not isinstance(node, Mapping):
        return plain(node)
    data = {}
    fields = _fields_by_key(model)
    for key, entry in node.entries.items():
        field = fields.get(key)
        if field is None or not _is_null(entry.value):
            data[key] = _data(_model_in(field.annotation) if field is not None else None, entry.value)
    return data


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _opening(node: Node) -> Span:
    return next(iter(node.entries.values())).key if isinstance(node, Mapping) and node.entries else node.span


def _diagnose(model: type[BaseModel], root: Mapping, detail: Any) -> Diagnostic:
    location: Location = tuple(detail["loc"])
    kind: str = detail["type"]
    parent = dotted(location[:-1])
    if kind == "extra_forbidden":
        names = _keys_at(model, location[:-1])
        help_ = nearest(location[-1], names) or f"known here: {', '.join(names)}"
        return Diagnostic("unknown-key", f"unknown key `{location[-1]}`", key_span(root, location), help_)
    span, node = find(root, location)
    if kind == "missing":
        help_ = f"write `{location[-1]}: …`"
        if _is_null(node):
            return Diagnostic("missing-key", f"`{dotted(location)}` is empty", key_span(root, location), help_)
        message = f"`{location[-1]}` is missing" + (f" in `{parent}`" if parent else "")
        return Diagnostic("missing-key", message, key_span(root, location[:-1]) if parent else span, help_)
    message, help_ = _explain(kind, node, detail.get("ctx", {}), detail["msg"])
    return Diagnostic("wrong-value", f"`{dotted(location)}`: {message}", span, help_)


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_HELP_BY_KIND = {
    "a list": "write `[a, b]`, or one `- item` a line",
    "a mapping": "write `{key: value}`, or indented `key: value` lines",
    "text": "put it in quotes",
}


def _explain(kind: str, node: Node, context: dict[str, Any], text: str) -> tuple[str, str]:
    """What is wrong with a value, and what to write instead."""
    if kind in ("enum", "literal_error"):
        choices = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
        names = [word or number for word, number in choices]
        return f"{_shown(node)} is not {one_of(names)}", _near_choice(node, names)
    if kind in _LIMITS:
        phrase, key = _LIMITS[kind]
        limit = context[key]
        return f"{_shown(node)}, but it must be {phrase} {limit:g}", f"write a number that is {phrase} {limit:g}"
    if kind == "string_pattern_mismatch":
        help_ = NAME_HELP if context["pattern"] == NAME_PATTERN else "write a version like `17.0`, in quotes"
        return f"{_shown(node)} is not {'a name' if context['pattern'] == NAME_PATTERN else 'a version'}", help_
    if kind in ("too_short", "string_too_short"):
        return "empty, but at least one is wanted", "name one"
    if kind in ("too_long", "string_too_long"):
        limit = context["max_length"]
        return f"longer than {limit}", f"keep it to {limit}"
    wanted = _WANTED.get(kind.partition("_")[0])
    if wanted is not None and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"expected {wanted}, found {_shown(node)}", _help_for(wanted, node)
    return f"{_shown(node)} is {text}", str(context.get("help", ""))


def _near_choice(node: Node, names: list[str]) -> str:
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return ""
    return "write it without quotes" if node.value in names else nearest(node.value, names)


def _help_for(wanted: str, node: Node) -> str:
    if wanted in ("a whole number", "a number") and isinstance(node, Scalar) and isinstance(node.value, str):
        return "write the number without quotes" if re.fullmatch(r"[0-9.]+", node.value) else "write digits"
    return (
        _HELP_BY_KIND.get(wanted, "") if not (wanted == "text" and not isinstance(node, Scalar)) else "write one value"
    )


def _shown(node: Node) -> str:
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return str(node.value).lower()
        case Scalar(value=str(text)):
            return f"`{text if len(text) <= 60 else text[:57] + '…'}`"
        case Scalar():
            return str(node.value)


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that the mapping at a location may have."""
    for step in location:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return [*_fields_by_key(model), *getattr(model, "known_besides", ())]


def _fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the keys that stand for them in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside of an optional or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
