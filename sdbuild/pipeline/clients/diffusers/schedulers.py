"""Schedulers by name, configured as the checkpoint's own configuration says."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.request import DEFAULT_SCHEDULER, DIFFUSERS_SCHEDULERS

_FALLBACK = "PNDMScheduler"
"""What the first checkpoints were released with; for bundles whose checkpoint has no scheduler configuration."""


def make_scheduler(name: str, configuration: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers.

    Args:
        name: a key of `DIFFUSERS_SCHEDULERS`, or `default` for the class that the configuration names.
        configuration: the checkpoint's `scheduler_config.json`.

    Raises:
        PipelineError: diffusers has no such scheduler, or the scheduler needs a package that is not installed.
    """
    import diffusers

    class_name = _class_name(name, configuration)
    kind = getattr(diffusers, class_name, None)
    if kind is None:
        raise PipelineError(
            f"the bundle's scheduler is {class_name}, which diffusers {diffusers.__version__} does not have; "
            f"choose another: scheduler={', '.join(DIFFUSERS_SCHEDULERS)}"
        )
    if class_name == DIFFUSERS_SCHEDULERS["lms"] and importlib.util.find_spec("scipy") is None:
        raise PipelineError("scheduler=lms integrates with SciPy, which is not installed: pip install scipy")
    return kind.from_config(dict(configuration))


def scheduler_name(name: str, configuration: Mapping[str, Any]) -> str:
    """The name that stands for a scheduler in a picture's metadata: what `default` comes to, where that has a name."""
    class_name = _class_name(name, configuration)
    names = {value: key for key, value in DIFFUSERS_SCHEDULERS.items()}
    return names.get(class_name, f"{DEFAULT_SCHEDULER} ({class_name})")


def takes_generator(scheduler: Any) -> bool:
    """Whether a scheduler's steps draw random numbers."""
    return "generator" in inspect.signature(scheduler.step).parameters


def _class_name(name: str, configuration: Mapping[str, Any]) -> str:
    if name == DEFAULT_SCHEDULER:
        return str(configuration.get("_class_name", _FALLBACK))
    return DIFFUSERS_SCHEDULERS[name]
