"""Pictures from a bundle: `Pipeline`."""

from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.pipeline import Pipeline, Request

__all__ = ["Pipeline", "PipelineError", "Request"]
