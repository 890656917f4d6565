"""The one error type of the reference runtime."""

from __future__ import annotations

from sdbuild.errors import SdbuildError


class RuntimeModelError(SdbuildError):
    """A model that cannot be loaded or run, or inputs that it refuses; names the feature or the operation."""
