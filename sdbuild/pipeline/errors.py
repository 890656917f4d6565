"""What goes wrong when pictures are made from a bundle."""

from sdbuild.errors import SdbuildError


class PipelineError(SdbuildError):
    """A bundle that cannot make the picture that was asked for."""


class RequestError(PipelineError):
    """A request that makes no sense, whatever the bundle."""

    exit_status = 2
