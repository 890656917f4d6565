"""What every replacement of a private part of a library is described by, and when it is made.

A replacement is written against functions whose source somebody has read. Where the installed ones are others, it is
left out, and the library's own way is taken; that is said once. What cannot be left out ends the conversion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from sdbuild.coreml.lowering.errors import ConversionError
from sdbuild.known_source import KnownSource


@dataclass(frozen=True)
class Patch:
    """One replacement, or one use of what no interface promises.

    Attributes:
        name: what it does, for people.
        why: the reason for it.
        without: what happens where it is left out.
        equality_test: the test that shows that results are the same with it and without, as pytest names it.
        sources: the functions that it replaces or relies on; none where all of them are public.
        made: enters the replacement for a while.
        required: whether there is no conversion without it.
    """

    name: str
    why: str
    without: str
    equality_test: str
    sources: tuple[KnownSource, ...]
    made: Callable[..., AbstractContextManager[Any]]
    required: bool = False

    def is_usable(self) -> bool:
        """Whether the libraries are as it expects them; where not, that is said, once.

        Raises:
            ConversionError: they are not, and it is required.
        """
        strange = next((source for source in self.sources if not source.is_known()), None)
        if strange is None:
            return True
        what = f"{strange.release}: {strange} is not the function that sdbuild knows"
        if self.required:
            raise ConversionError(
                f"{what}, and '{self.name}' cannot be left out: {self.without}. "
                "Install a release that docs/dependencies.md names"
            )
        if (self.name, str(strange)) not in _told:
            _told.add((self.name, str(strange)))
            print(f"{what}; '{self.name}' is left out: {self.without}", file=sys.stderr, flush=True)
        return False

    @contextmanager
    def applied(self, *arguments: Any) -> Iterator[Any]:
        """The replacement for a while, or nothing (and None) where the libraries are others."""
        if not self.is_usable():
            yield None
            return
        with self.made(*arguments) as value:
            yield value


_told: set[tuple[str, str]] = set()


@contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Give an attribute of a class or module another value for a while."""
    original = vars(owner)[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
