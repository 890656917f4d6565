"""The functions of this room that networks are registered with, imported when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sdbuild.components import NETWORKS
from sdbuild.components.network import FunctionName, Network
from sdbuild.models.errors import ModelError

_MODULES = "sdbuild.models.*"


def registered(component: str) -> Network:
    """The network of that name.

    Raises:
        ModelError: there is none.
    """
    if component not in NETWORKS:
        raise ModelError(f"Unknown component {component!r}; known are {', '.join(NETWORKS)}.")
    return NETWORKS[component]


def function(name: FunctionName) -> Callable[..., Any]:
    """Import the module and return the function."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(_MODULES.replace("*", module)), attribute)
    return found
