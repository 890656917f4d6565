"""What the word for a textual inversion may be, and its file."""

from __future__ import annotations

import string

EMBEDDING_SUFFIXES = (".safetensors", ".pt", ".bin")
"""How the files of textual inversions end."""

_KNOWN = frozenset(string.ascii_letters + string.digits + string.punctuation)
_LONGEST = 64


class TokenError(ValueError):
    """A word that the Swift package's tokenizer could not read as one."""


def check_token(token: str) -> str:
    """Return a token that can be reached by merges.

    The Swift package splits prompts at spaces, merges grapheme clusters where CLIP merges bytes, takes lines of
    `merges.txt` that start with # for comments, and marks the ends of words with `</w>`.

    Raises:
        TokenError: says what the token is instead.
    """
    if not 0 < len(token) <= _LONGEST:
        raise TokenError(f"not 1 to {_LONGEST} characters long")
    if strange := sorted({*token} - _KNOWN):
        raise TokenError(f"not one word of ASCII letters, digits and signs: it holds {strange[0]!r}")
    if "#" in token or "</w>" in token.lower():
        raise TokenError(f"not a word that merges can make: it holds {'#' if '#' in token else '</w>'}")
    return token
