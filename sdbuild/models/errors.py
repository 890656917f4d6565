"""The one error of this room."""

from __future__ import annotations

from sdbuild.errors import SdbuildError


class ModelError(SdbuildError):
    """A checkpoint or configuration that cannot become a model: what is wrong, where, and what to do."""
