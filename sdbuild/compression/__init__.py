"""Every way to make weights smaller, one file each, and the one value that says how a model's are.

A subclass of `Compression` in any module here is a method: recipes may write what its `choices` say, preflight asks it
what systems hold it, estimates ask it for bytes, verification for the signal that must be left, and the quantize stage
calls its function. A recipe's words become a `Compression` in `Recipe.compression`, and nothing after that looks at
words.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from sdbuild.compression.method import GENERATIONS, Compression, Spelling

__all__ = ["CHOICES", "DOCUMENTATION", "GENERATIONS", "METHODS", "NONE", "Compression", "Spelling", "compression_of"]

NONE = "none"
"""What a recipe writes to keep a model's precision."""

_DECLARATIONS = "sdbuild.compression.*"


def _methods() -> dict[str, type[Compression]]:
    """Every method by name.

    Raises:
        TypeError: a module declares none, or two methods or two spellings are alike.
    """
    found: dict[str, type[Compression]] = {}
    # Documentation tells of look-up tables first.
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name != "look_up_tables"):
        module = importlib.import_module(_DECLARATIONS.replace("*", info.name))
        own = [kind for kind in vars(module).values() if _is_method(kind, module.__name__)]
        if not own and info.name != "method":
            raise TypeError(f"{module.__name__} declares no Compression with a method and its documentation")
        for kind in own:
            if kind.method in found:
                raise TypeError(f"{module.__name__}: another compression is called {kind.method!r}")
            found[kind.method] = kind
    return found


def _is_method(kind: object, module: str) -> bool:
    if not (isinstance(kind, type) and issubclass(kind, Compression) and kind.__module__ == module):
        return False
    return bool(getattr(kind, "method", "")) and bool(getattr(kind, "documentation", ""))


def _choices(methods: Mapping[str, type[Compression]]) -> dict[Spelling, Compression]:
    found: dict[Spelling, Compression] = {}
    for kind in methods.values():
        for spelling, compression in kind.choices().items():
            if spelling in found or spelling == NONE:
                raise TypeError(
                    f"{kind.__module__}: {spelling!r} means {found.get(spelling, 'no compression')} already"
                )
            found[spelling] = compression
    return found


METHODS = _methods()
CHOICES = _choices(METHODS)
"""What recipes may write under `quantization`, besides `none` → what it means."""
DOCUMENTATION = ", ".join(kind.documentation for kind in METHODS.values())
"""What recipes may write, for people."""


def compression_of(method: str, bits: int, group_size: int | None) -> Compression:
    """The value that key documents say of it.

    Raises:
        ValueError: there is no such method, or it has no such choice.
    """
    chosen = [each for each in METHODS[method].choices().values() if each.bits == bits] if method in METHODS else []
    found = chosen[0] if chosen else None
    if found is not None and group_size is not None:
        found = found.in_groups(group_size)
    if found is None:
        known = ", ".join(METHODS)
        raise ValueError(f"no compression {method!r} with {bits} bits and groups of {group_size}; methods are {known}")
    return found
