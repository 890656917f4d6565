"""The one error of this room."""

from __future__ import annotations

from sdbuild.errors import SdbuildError


class ModelError(SdbuildError):
    """A checkpoint or configuration that cannot become a model: what is wrong, in which file or tensor, and what to do."""
