"""What goes wrong with bundles."""

from sdbuild.errors import SdbuildError


class BundleError(SdbuildError):
    """A bundle, a model in it or its tokenizer is not what it should be."""
