"""T5's `tokenizer.json` of a bundle: the checkpoint's own, in the words that both readers of it know.

The `tokenizers` library has changed how it writes some parts down, and reads both ways. The Swift package reads the
file with swift-transformers 0.1.8 (`Package.swift` of apple/ml-stable-diffusion), which knows the older ways alone:

- `Metaspace` puts `▁` before a text where `add_prefix_space` stands (`PreTokenizer.swift`); newer files say
  `prepend_scheme` instead, and every first piece of a word would be lost.
- there is no normalizer `Strip` (`Normalizer.swift`): the app ends. A `Replace` does the same work.

What is written here gives the same tokens in the `tokenizers` library as the file that it was made from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdbuild.bundle.errors import BundleError

TOKENIZER = "tokenizer.json"

# The characters of Unicode's White_Space, which is what `Strip` takes away, as a class of a regular expression.
_WHITE_SPACE = "[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
# At the very end of the text: `$` would match before a last newline too.
_ENDS = {"strip_left": rf"\A{_WHITE_SPACE}+", "strip_right": rf"{_WHITE_SPACE}+\z"}


def write_t5_tokenizer(source: Path, resources: Path) -> None:
    """Write T5's `tokenizer.json` to `resources`; one that the package reads already keeps its bytes.

    Raises:
        BundleError: the file is missing or no tokenizer.
    """
    path = source / TOKENIZER
    try:
        content = path.read_bytes()
        original = json.loads(content)
        translated = for_swift(original)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: T5's tokenizer cannot be read ({error!r}); take it from the checkpoint") from error
    if translated != original:
        content = (json.dumps(translated, ensure_ascii=False, indent=1) + "\n").encode("utf-8")
    (resources / TOKENIZER).write_bytes(content)


def for_swift(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's document in words that the `tokenizers` library and the Swift package both know."""
    changed = dict(tokenizer)
    for part in ("pre_tokenizer", "decoder", "normalizer"):
        if tokenizer.get(part) is not None:
            changed[part] = _translated(tokenizer[part])
    return changed


def prepends(metaspace: dict[str, Any]) -> bool:
    """Whether the `tokenizers` library puts `▁` before a text, by either way of saying so.

    Source: huggingface/tokenizers, `pre_tokenizers/metaspace.rs`, the deserialisation of `Metaspace`.
    """
    scheme = metaspace.get("prepend_scheme")
    if scheme is None:
        return bool(metaspace.get("add_prefix_space", True))
    return bool(scheme != "never")


def _translated(part: dict[str, Any]) -> dict[str, Any]:
    """One part of the document, with all parts in it."""
    kind = part["type"]
    if kind == "Metaspace":
        scheme = part.get("prepend_scheme") or ("always" if prepends(part) else "never")
        return part | {"add_prefix_space": prepends(part), "prepend_scheme": scheme}
    if kind == "Strip" and "strip_left" in part:
        replaced = [
            {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}
            for side, pattern in _ENDS.items()
            if part.get(side)
        ]
        return replaced[0] if len(replaced) == 1 else {"type": "Sequence", "normalizers": replaced}
    for parts in ("pretokenizers", "normalizers", "decoders"):
        if kind == "Sequence" and parts in part:
            return part | {parts: [_translated(each) for each in part[parts]]}
    return part
