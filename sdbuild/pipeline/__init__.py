"""Pictures from a bundle: `Pipeline`."""

from typing import TYPE_CHECKING, Any

from sdbuild.pipeline.errors import PipelineError, RequestError
from sdbuild.pipeline.request import Request

if TYPE_CHECKING:
    from sdbuild.pipeline.pipeline import Pipeline as Pipeline

__all__ = ["Pipeline", "PipelineError", "Request", "RequestError"]


def __getattr__(name: str) -> Any:
    """Load `Pipeline`, and torch with it, when it is first asked for: a request can be checked without."""
    if name == "Pipeline":
        from sdbuild.pipeline.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
