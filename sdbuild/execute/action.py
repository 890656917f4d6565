"""What has to be known of an action to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MEMORY = 2_000_000_000
"""Bytes reserved for an action of which nothing is known."""


@dataclass(frozen=True)
class ActionSpec:
    """One action, its inputs known by their content.

    Attributes:
        name: what people read, as ``convert:unet``.
        stage: the stage's name.
        entry: ``module:function`` that the worker imports and calls with (inputs, params, out, progress).
        params: JSON values for the stage; what shapes the result is in the document too.
        inputs: role → digest of the tree that stands there.
        document: the key document.
        key: its `sdbuild.store.key_of`.
        memory: bytes that it is expected to need.
    """

    name: str
    stage: str
    entry: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    document: Mapping[str, Any]
    key: str
    memory: int = field(default=DEFAULT_MEMORY)
