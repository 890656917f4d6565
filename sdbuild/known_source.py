"""Functions of other people's packages that no interface promises: are they the ones that we know?

A digest of a function's source says so. Comment lines, empty lines and the depth of indentation are no part of it.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class KnownSource:
    """A function that is replaced or relied on.

    Attributes:
        module: where it is defined.
        name: its name there, `Class.method` for a method.
        digests: of each source that was read and tested with; one for each release that changed it.
    """

    module: str
    name: str
    digests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def release(self) -> str:
        """The distribution with its version, for people."""
        distribution = self.module.partition(".")[0]
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            return distribution

    def is_known(self) -> bool:
        """Whether the installed function is one of those."""
        return current_digest(self.module, self.name) in self.digests


@cache
def current_digest(module: str, name: str) -> str | None:
    """The digest of a function as it is installed; None where there is none, or none with Python source."""
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = inspect.getattr_static(found, part)
        return digest("".join(inspect.getsource(function) for function in _functions(found)))
    except (ImportError, AttributeError, OSError, TypeError):
        return None


def digest(source: str) -> str:
    """The digest of a function's source."""
    lines = (line.rstrip() for line in textwrap.dedent(source).splitlines())
    kept = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


def _functions(found: Any) -> list[Any]:
    """The plain functions behind a descriptor or a decorator."""
    if isinstance(found, property):
        return [function for function in (found.fget, found.fset) if function is not None]
    if isinstance(found, staticmethod | classmethod):
        return [found.__func__]
    return [inspect.unwrap(found)]


def known(module: str, functions: Mapping[str, tuple[str, ...]]) -> tuple[KnownSource, ...]:
    """Several functions of one module: name → digests."""
    return tuple(KnownSource(module, name, digests) for name, digests in functions.items())
