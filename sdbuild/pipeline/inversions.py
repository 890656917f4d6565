"""Textual inversions in prompts: which words they are, and how those of several vectors are written out.

The Swift package has no such step: an app writes the tokens of `bundle.json` itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Inversions = Sequence[Mapping[str, Any]]
"""`textual_inversions` of a `bundle.json`."""


def expand(prompt: str, inversions: Inversions) -> str:
    """Write out each embedding of several vectors: `<toy>` becomes `<toy> <toy>_1 <toy>_2`.

    As diffusers does, wherever the token stands, in capitals or not; but what is written out already stays as it is.
    """
    by_token = {inversion["token"]: inversion["tokens"] for inversion in inversions}
    if not by_token:
        return prompt
    pattern = re.compile(rf"({_any_of(by_token)})(?!_\d)(?!\s+(?:\1)_1)", re.IGNORECASE)
    return pattern.sub(lambda match: " ".join([match[0], *by_token[match[0].lower()][1:]]), prompt)


def split(prompt: str, inversions: Inversions) -> Iterator[tuple[str, bool]]:
    """The parts of a prompt in order, and whether each is a textual inversion's token."""
    tokens = [token for inversion in inversions for token in inversion["tokens"]]
    if not tokens:
        yield prompt, False
        return
    for index, part in enumerate(re.split(f"({_any_of(tokens)})", prompt, flags=re.IGNORECASE)):
        yield part, bool(index % 2)


def _any_of(tokens: Sequence[str] | Mapping[str, Any]) -> str:
    """A pattern for the longest token that stands at a place."""
    return "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
