"""Less to import, for a process that runs one stage and ends with it.

diffusers, transformers and coremltools import some packages if they are installed, and do without if not. Where a stage
never uses one, it is hidden from them: these packages take up to half of the time of all imports. While Python imports,
it searches all that was imported so far for garbage over and over, and finds none.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def hide(*packages: str) -> None:
    """Let libraries that are imported from now on find none of these packages, unless they are imported already.

    A library that once found a package missing stays without it, so this is nothing for a process that goes on to do
    something else.
    """
    for package in packages:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # which is how an import is told to fail


@contextmanager
def undisturbed() -> Iterator[None]:
    """Import without searching for garbage, and never search what was imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
