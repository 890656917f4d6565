"""Prompts as the numbers that text encoders take: what every client makes of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.errors import PipelineError


@dataclass(frozen=True)
class Tokens:
    """A text as a row of token ids.

    Attributes:
        ids: (1, tokens).
        remarks: sentences on what of the text is not read as one would expect.
    """

    ids: NDArray[np.int32]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskedTokens:
    """A text for T5.

    Attributes:
        ids: (1, tokens).
        mask: (1, tokens); 1 where T5 does not look.
        remarks: as of `Tokens`.
    """

    ids: NDArray[np.int32]

    mask: NDArray[np.float32]
    remarks: tuple[str, ...] = ()


class Reader(Protocol):
    """How a client reads prompts, with a bundle's own files."""

    def clip(self, text: str, length: int, encoder: str) -> Tokens:
        """A text for one of CLIP's encoders, such as `TextEncoder2`, which takes `length` tokens."""

    def t5(self, text: str, length: int) -> MaskedTokens:
        """A text for T5."""


def row(ids: Sequence[int]) -> NDArray[np.int32]:
    """Token ids as a batch of one."""
    return np.array([ids], np.int32)


def require(resources: Path, names: Sequence[str], advice: str) -> None:
    """Refuse a bundle without some of the files that prompts are read with.

    Raises:
        PipelineError: names what is missing.
    """
    if missing := [name for name in names if not (resources / name).is_file()]:
        raise PipelineError(f"{resources} lacks {' and '.join(missing)}; {advice}")
