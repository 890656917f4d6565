"""A byte-pair tokenizer in CLIP's format, learnt from the sentences that `shapes` is asked with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from sdbuild.builtin.tiny import configs
from sdbuild.builtin.tiny.tokenizer import END, START, WORD_END, alphabet, learn
from sdbuild.shapes.scenes import describe
from sdbuild.shapes.training.data import scene

_SENTENCES = 4000


def words() -> Counter[str]:
    """How often each word stands in the sentences of the first scenes."""
    counted: Counter[str] = Counter()
    for number in range(_SENTENCES):
        content, random = scene(number)
        counted.update(describe(content, random).text.replace(",", " ,").split())
    return counted


def write(folder: Path) -> int:
    """Write the tokenizer's four files into `folder`; returns the vocabulary's size."""
    letters = alphabet()
    merges = learn(words(), most=10_000)
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    tokens += [*dict.fromkeys(first + second for first, second in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    files = {"vocab.json": {token: index for index, token in enumerate(tokens)}, **configs.tokenizer()}
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return len(tokens)
