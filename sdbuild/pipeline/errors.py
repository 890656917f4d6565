"""What goes wrong when pictures are made from a bundle."""

from sdbuild.errors import SdbuildError


class PipelineError(SdbuildError):
    """A bundle that cannot make the picture that was asked for, or a request that makes no sense for it."""
