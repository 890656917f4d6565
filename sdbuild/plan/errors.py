"""What planning says when a command line, a recipe and a target do not make a build."""

from collections.abc import Iterable
from difflib import get_close_matches

from sdbuild.errors import SdbuildError


class PlanError(SdbuildError):
    """A build that was asked for cannot be planned."""

    exit_status = 2


def nearest(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'recipe'?"` for the nearest of some valid words, or nothing when none is near."""
    close = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
