"""What a client's contract is made of: for each model that it loads, the inputs that it feeds and the outputs it reads.

Sizes that several models share are letters: `h`, `w` latent rows and columns, `H`, `W` the picture's, `L` tokens, `D`
text width, `B` batch. A letter must be the same number wherever it stands in one pipeline.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Size = int | str | tuple[int, ...]

MEANINGS = {
    "B": "batch",
    "h": "latent height",
    "w": "latent width",
    "H": "picture height",
    "W": "picture width",
    "L": "number of tokens",
    "D": "text width",
    "D1": "first text encoder's width",
    "D2": "second text encoder's width",
    "P": "width of the pooled text state",
    "P1": "width of the first pooled text state",
    "X": "text width",
    "XR": "refiner's text width",
    "T": "number of time ids",
    "TR": "number of the refiner's time ids",
    "N": "number of T5's tokens",
    "S": "number of text states",
    "G": "width of the embedded guidance scale",
}


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: its name; for one that is read dynamically, the usual name.
        shape: sizes, outermost first: a number, one of some numbers, or a letter; None when nothing depends on it.
        optional: it may be missing.
    """

    name: str
    shape: tuple[Size, ...] | None
    optional: bool = False


@dataclass(frozen=True)
class Numbered:
    """Tensors that one model gives and another takes, called by a word and numbers from 0 on.

    Attributes:
        word: their name before the number.
        side: which side of the model has them.
    """

    word: str
    side: Literal["inputs", "outputs"]

    def has(self, name: str) -> bool:
        """Whether an input or output is one of them."""
        return re.fullmatch(rf"{self.word}_\d+", name) is not None


@dataclass(frozen=True)
class Row:
    """A model's interface.

    Attributes:
        inputs: what the Swift package feeds.
        outputs: what it reads.
        any_input: there is one input, whatever its name.
        any_output: there is one output, whatever its name.
        numbered: the numbered tensors that it has besides, and on which side.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    any_input: bool = False
    any_output: bool = False
    numbered: Numbered | None = None


@dataclass(frozen=True)
class Conditioners:
    """Models in a folder of their own that turn pictures into what a UNet takes.

    Attributes:
        folder: where they lie in Resources.
        unet: the UNet.
        word: what the tensors are called that pass, before their number.
        rule: the rule that both sides must agree.
        document: the list in `bundle.json`.
        repeated: whether their batch is 1, and an app repeats what they give for each row of the UNet's.
    """

    folder: str
    unet: str
    word: str
    rule: str
    document: str
    repeated: bool
