"""Every replacement of a private part of coremltools, torch and numpy, one a file, and what they have in common.

A file says what it replaces, why, the digest of the source that it was written against, the test that shows that
results are the same, and what happens without it: see `Patch`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sdbuild.coreml.lowering.patches import (
    attributes,
    constant_types,
    deduplication,
    half,
    near_zero,
    nonreplaceable,
    numpy_constructors,
    operation_classes,
    operators,
    overflow,
    program_text,
    progress_bar,
    scopes,
    type_descriptions,
    type_inference,
)
from sdbuild.coreml.lowering.patches.patch import Patch

_WHILE_LOWERING = (
    operators,
    nonreplaceable,
    scopes,
    progress_bar,
    program_text,
    type_descriptions,
    attributes,
    operation_classes,
    constant_types,
    type_inference,
    deduplication,
    near_zero,
    numpy_constructors,
    overflow,
    half,
)


@contextmanager
def while_lowering() -> Iterator[None]:
    """What makes coremltools' frontend and passes quick, for the time of one conversion."""
    # All are looked at before the first is made: one may rely on what another replaces.
    usable = [module.PATCH for module in _WHILE_LOWERING if module.PATCH.is_usable()]
    with ExitStack() as stack:
        for patch in usable:
            stack.enter_context(patch.applied())
        yield


def all_patches() -> dict[str, Patch]:
    """Every replacement, by the name of its file."""
    names = (module.name for module in pkgutil.iter_modules(__path__) if module.name != "patch")
    return {name: importlib.import_module(f"{__name__}.{name}").PATCH for name in names}
