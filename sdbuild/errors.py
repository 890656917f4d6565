"""The root of every error that a user can cause or cure; each room derives one type from it."""

UNFORESEEN = 70
"""The exit status for a mistake of our own (`EX_SOFTWARE` of sysexits.h)."""


class SdbuildError(Exception):
    """A failure with a message for people: what happened, where, and what to do next.

    Attributes:
        exit_status: the process exit status that the command line uses for this error.
    """

    exit_status: int = 1
