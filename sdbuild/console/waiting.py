"""What is said to people while a build and a collection of the cache wait for each other."""

import sys


def for_a_collection() -> None:
    """Why a build does not start yet."""
    print("the cache is being collected; the build starts when that is done", file=sys.stderr, flush=True)


def for_builds() -> None:
    """Why a collection does not start yet."""
    print("a build is using the cache; waiting until none does", file=sys.stderr, flush=True)
