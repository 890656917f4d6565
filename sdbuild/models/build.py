"""The entry of this room: from a component's folder to a model that can be exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdbuild.models.arguments import BuildArguments
from sdbuild.models.component import ComponentModel
from sdbuild.models.registry import function, registered


def build(component: str, checkpoint: Path, **arguments: Any) -> ComponentModel:
    """Build a component without its weights.

    Args:
        component: the name of a network.
        checkpoint: the folder with this component's config.json and weights.
        arguments: fields of `BuildArguments`.

    Raises:
        ModelError: what is missing or not supported, and in which file.
    """
    model: ComponentModel = function(registered(component).build)(component, checkpoint, BuildArguments.of(arguments))
    return model
