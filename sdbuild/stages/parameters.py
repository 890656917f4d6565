"""A stage's parameters: a frozen dataclass where they are made and read, JSON values in key documents between.

A field without a default is always written. One with a default is written where it has another value: that is how a
stage gets a parameter that most actions do without, and keeps the keys that it had.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sdbuild.errors import SdbuildError

Parameters = TypeVar("Parameters")
Progress = Callable[[float, str], None]
Run = Callable[[Mapping[str, Path], Parameters, Path, Progress], None]
"""What a stage does: `(inputs, parameters, out, progress)`."""
Entry = Callable[[Mapping[str, Path], Mapping[str, Any], Path, Progress], None]
"""The same, with parameters as key documents hold them."""


class ParameterError(SdbuildError):
    """Parameters are not those of the stage."""


@dataclass_transform(frozen_default=True)
def parameters(kind: type[Parameters]) -> type[Parameters]:
    """Make a class the frozen dataclass of a stage's parameters, or of a part of them, closed to unknown names."""
    kind.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(kind)


def to_document(value: Any) -> Any:
    """Parameters as key documents hold them."""
    if dataclasses.is_dataclass(value):
        found = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {name: to_document(part) for name, (field, part) in found.items() if not _is_default(field, part)}
    if isinstance(value, Mapping):
        return {name: to_document(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_document(part) for part in value]
    return value.value if isinstance(value, Enum) else value


def from_document(kind: type[Parameters], document: Mapping[str, Any]) -> Parameters:
    """Parameters out of a key document.

    Raises:
        ParameterError: names a parameter that is missing, unknown, or of another type.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(document))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ParameterError(
            f"{kind.__module__}.{kind.__qualname__}: {wrong}. The planner and the stage are of different versions, or "
            "one of them lacks a parameter that the other has."
        ) from error


def reads(kind: type[Parameters]) -> Callable[[Run[Parameters]], Entry]:
    """Let a stage's function have its parameters as what they are; they are checked before it starts."""

    def decorate(run: Run[Parameters]) -> Entry:
        @functools.wraps(run)
        def entry(inputs: Mapping[str, Path], params: Mapping[str, Any], out: Path, progress: Progress) -> None:
            run(inputs, from_document(kind, params), out, progress)

        return entry

    return decorate


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    return field.default_factory is not dataclasses.MISSING and bool(value == field.default_factory())
