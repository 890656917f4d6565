"""The store's one error type."""

from sdbuild.errors import SdbuildError


class StoreError(SdbuildError):
    """The cache cannot do what was asked: says which path or digest, and what to do next."""
