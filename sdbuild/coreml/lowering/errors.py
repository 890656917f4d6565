"""The exception of a conversion."""

from __future__ import annotations

from sdbuild.errors import SdbuildError


class ConversionError(SdbuildError):
    """A module cannot become a Core ML package."""
