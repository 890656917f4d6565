"""Versions of the tools that shape artifacts, read without importing any of them."""

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from sdbuild.plan.errors import PlanError
from sdbuild.stages.compile import CompileError, compiler_build


@cache
def installed_version(distribution: str) -> str:
    """The version of an installed distribution, without its local part.

    The local part (`+cpu`) names a build of the same source for other hardware; a Mac must find what a Linux machine
    has put into a shared cache.

    Raises:
        PlanError: it is not installed.
    """
    try:
        return version(distribution).partition("+")[0]
    except PackageNotFoundError:
        raise PlanError(f"{distribution} is not installed; install sdbuild again with its dependencies") from None


@cache
def core_ml_compiler() -> str | None:
    """The build of Apple's Core ML compiler, or None where there is none; a Mac without one is told how to get it."""
    if platform.system() != "Darwin":
        return None
    try:
        return compiler_build()
    except CompileError as error:
        print(f"{error}\nUntil then bundles hold packages instead of compiled models.", file=sys.stderr)
        return None
