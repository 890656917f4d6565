"""What every mapping of a recipe or a target is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """What every mapping of a recipe or target is: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known_besides: ClassVar[tuple[str, ...]] = ()
    """Keys that the language has here and the value has not: they are resolved before."""
