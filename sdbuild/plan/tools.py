"""Versions of the tools that shape artifacts, read without importing any of them."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from sdbuild.plan.errors import PlanError


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
    """The build of Apple's Core ML compiler, or None where there is none."""
    if platform.system() != "Darwin":
        return None
    try:
        found = subprocess.run(["xcrun", "coremlcompiler", "version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
