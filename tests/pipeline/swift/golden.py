"""Writes prompts.json, what the package makes of 300 awkward prompts: `python -m tests.pipeline.swift.golden`.

The ids are those of `reader`, the second reading of the package's rules, with the tokenizers of the tiny checkpoints.
The first 60 prompts stand here as they are; the others are put together from pieces that are awkward in one way each.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from sdbuild.builtin.tiny import tokenizer, unigram
from tests.pipeline.swift.reader import T5, Clip

PATH = Path(__file__).with_name("prompts.json")
LENGTH = 77
COUNT = 300

WRITTEN = (
    "a large red heart, a small green square",
    "",
    " ",
    "a photo of an astronaut riding a horse on mars",
    "A Photo Of An ASTRONAUT, Riding A HORSE",
    "it's a dog's life, isn't it?",
    "a cat. a dog. a bird.",
    "well-known black-and-white photograph",
    "1girl, 2boys, 4k, 8k, f/1.8, 50mm, 1920s",
    "2024-11-28 at 10:15, 3.14159 and 1,000,000",
    "caf\u00e9 au lait, cr\u00e8me br\u00fbl\u00e9e",
    "cafe\u0301 au lait, cre\u0300me bru\u0302le\u0301e",
    "Z\u00fcrich, 7 o'clock: \u00fcn\u00efcode \u2014 \u732b \U0001f408?",
    "\u2764\ufe0f a red heart \u2764",
    "\U0001f469\u200d\U0001f680 on mars",
    "\U0001f44d\U0001f3fd thumbs up \U0001f44d",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 two flags",
    "\u732b\u3068\u72ac\u306e\u7d75",
    "\u4e00\u53ea \u732b",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\u0130STANBUL and I\u0307zmir",
    "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 and \u03a3",
    "STRASSE, stra\u00dfe, \u1e9e",
    "\u01c5 titlecase, \ufb01ne ligatures",
    "\u212b and \u00c5 and A\u030a, \u2126 and \u212a",
    "a photo of a fox\nin the forest",
    "a photo of a fox\r\nin the forest\r\n",
    "a\tphoto\tof\ta fox",
    "  a  photo   of a    fox  ",
    "a\u00a0photo of\u2003a\u3000fox",
    "\u200ba photo\u200b of a\u200dfox\u2060",
    "a photo \u0301of a fox",
    "\ufeffa photo of a fox",
    "\"a fox\" and 'a dog', \u201ca cat\u201d and \u2018a bird\u2019",
    "\u00aba fox\u00bb \u2039a dog\u203a \u300ca cat\u300d",
    "(masterpiece:1.2), ((best quality)), [low quality]",
    "{a|b|c}, <lora:style:0.8>, BREAK",
    "a fox <|endoftext|> a dog <|startoftext|>",
    "</w> a</w> fox</w>",
    "!!! ! !a fox! !",
    "a fox & a dog @ 50% #art $5 ^_^ ~ `code` \\ / | *",
    "...and then\u2026 nothing",
    "\u2160\u2161\u2162, \u00bd, \u00b2, \u2460, \uff11\uff12\uff13",
    "\uff21\uff22\uff23 full width\uff5e\uff5etilde\uff5e",
    "\U0001d4d0\U0001d4d1\U0001d4d2 script letters",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0327\u0348\u0354l\u031d\u0339g\u033b\u0321o",
    "q\u0307\u0323 and q\u0323\u0307",
    "\u1100\u1161\u11a8\u11a8 \uac00\u11a8 \uac01",
    "\u0915\u094d\u0937\u093f \u0915\u094d \u0937\u093f",
    "\u0600123 \u06dda \U000110bdx",
    "\u037e \u00b7 \u0387 \u1fef \u00b4",
    "a\x00b\x07c\x1bd\x7fe\x85f",
    "word " * 200,
    "a red fox, " * 40 + "and at the very end a green boat",
    "\U0001f98a" * 80,
)
PIECES = (
    *("a", "fox", "The", "RED", "astronaut", "mountains,", "photo-real", "don't", "it's", "o'clock", "U.S.A.", "e.g.,"),
    *("3d", "4k,", "1080p", "100%", "c++", "f/2.8", "7", "007", "\u00bd", "\u2163"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\u00c9",
        "E\u0301",
        "\u00f1",
        "n\u0303",
        "\u0130",
        "I\u0307",
        "\u03a3",
        "\u00df",
        "\ufb03",
    ),
    *(
        "\u732b",
        "\u732b\u3067\u3059\u3002",
        "\ud55c\uae00",
        "\u1112\u1161\u11ab",
        "\u0915\u094d\u0937\u093f",
        "\u0e19\u0e49\u0e33",
        "\u05e9\u05c1",
    ),
    *(
        "\u2764\ufe0f",
        "\u2764",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1ef\U0001f1f5",
        "\U0001f44b\U0001f3fe",
        "1\ufe0f\u20e3",
    ),
    *(
        '"',
        "'",
        "\u201c",
        "\u2019",
        "(",
        ")",
        "[x]",
        ",",
        ".",
        ";",
        ":",
        "!",
        "?",
        "-",
        "--",
        "\u2014",
        "_",
        "|",
        "\\",
        "</w>",
    ),
    *(
        "<|endoftext|>",
        "\u0301",
        "\u200d",
        "\ufe0f",
        "\u212b",
        "\u037e",
        "\u00b7",
        "\u0387",
        "\x07",
        "\u2581",
        "\uff5e",
        "\ufffd",
    ),
)
JOINTS = (" ", " ", " ", "  ", "", "", ", ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\u2028")


def prompts() -> list[str]:
    """All prompts."""
    chance = random.Random(15)
    found = dict.fromkeys(WRITTEN)
    assert len(found) == 60
    while len(found) < COUNT:
        length = chance.choice((1, 2, 3, 5, 8, 13, 21, 90))
        found["".join(chance.choice(PIECES) + chance.choice(JOINTS) for _ in range(length))] = None
    return list(found)


def t5_tokenizer() -> dict[str, Any]:
    """T5's tokenizer of the tiny checkpoint, with what the package needs and a table."""
    whole = unigram.files()["tokenizer.json"]
    split, metaspace = whole["pre_tokenizer"]["pretokenizers"]
    sequence = {"type": "Sequence", "pretokenizers": [split, metaspace | {"add_prefix_space": True}]}
    precompiled = {"type": "Precompiled", "precompiled_charsmap": ""}
    return whole | {"pre_tokenizer": sequence, "normalizer": precompiled, "added_tokens": []}


def shortened(ids: list[int]) -> list[int]:
    """Without the padding, but for one."""
    while len(ids) > 1 and ids[-1] == ids[-2]:
        ids = ids[:-1]
    return ids


def main() -> None:
    """Write the file."""
    clip, t5 = Clip(*tokenizer.files()), T5(t5_tokenizer())
    entries = [
        {"prompt": prompt, "clip": shortened(clip.read(prompt, LENGTH)), "t5": shortened(t5.read(prompt, LENGTH))}
        for prompt in prompts()
    ]
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    PATH.write_text(f"[\n{lines}\n]\n", encoding="ascii")


if __name__ == "__main__":
    main()
