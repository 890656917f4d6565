"""Schedulers by name, configured as the checkpoint's own configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdbuild.pipeline.errors import PipelineError

SCHEDULERS: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
}
"""What may be asked for → the class of diffusers that does it; `default` is the checkpoint's own."""


def scheduler(name: str, configuration: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers.

    Args:
        name: a key of `SCHEDULERS`, or `default` for the class that the configuration names.
        configuration: the checkpoint's `scheduler_config.json`.

    Raises:
        PipelineError: no such scheduler.
    """
    import diffusers

    class_name = configuration.get("_class_name", "PNDMScheduler") if name == "default" else SCHEDULERS.get(name)
    if class_name is None:
        raise PipelineError(f"scheduler={name}: write default or one of {', '.join(SCHEDULERS)}")
    kind = getattr(diffusers, class_name, None)
    if kind is None:
        raise PipelineError(
            f"the bundle's scheduler is {class_name}, which diffusers {diffusers.__version__} does not have; "
            f"choose another: scheduler={', '.join(SCHEDULERS)}"
        )
    return kind.from_config(dict(configuration))
