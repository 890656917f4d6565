"""From a prompt to the text states that the UNet attends to, with the bundle's own vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.errors import PipelineError

Floats = NDArray[np.float32]
Predict = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, Floats]]


@dataclass(frozen=True)
class TextStates:
    """What text encoders say of one prompt.

    Attributes:
        hidden: (1, tokens, width).
        pooled: (1, width) of the last encoder, or None where it has no pooled output.
    """

    hidden: Floats
    pooled: Floats | None


class Tokenizer:
    """CLIP's byte-pair encoding over the bundle's `vocab.json` and `merges.txt`."""

    def __init__(self, resources: Path) -> None:
        missing = [name for name in ("vocab.json", "merges.txt") if not (resources / name).is_file()]
        if missing:
            raise PipelineError(f"{resources}: {' and '.join(missing)} missing; build the bundle again")
        from transformers import CLIPTokenizer

        self._tokenizer = CLIPTokenizer(vocab=str(resources / "vocab.json"), merges=str(resources / "merges.txt"))

    def ids(self, prompt: str, length: int, padding: str) -> tuple[NDArray[np.int32], str]:
        """Token ids, (1, length), and the end of the prompt that did not fit.

        Args:
            prompt: any text.
            length: tokens of the text encoder, start and end of text included.
            padding: the token that fills the rest; `<|endoftext|>`, or `!` for OpenCLIP's encoders.
        """
        words: list[int] = self._tokenizer(prompt, add_special_tokens=False).input_ids
        kept, lost = words[: length - 2], words[length - 2 :]
        start, end, fill = (
            self._tokenizer.convert_tokens_to_ids(token) for token in ("<|startoftext|>", "<|endoftext|>", padding)
        )
        row = [start, *kept, end]
        row += [fill] * (length - len(row))
        return np.array([row], np.int32), str(self._tokenizer.decode(lost)) if lost else ""


@dataclass(frozen=True)
class Encoder:
    """One text encoder of a bundle.

    Attributes:
        predict: runs the model.
        length: tokens that it takes.
        padding: the token that fills its input.
    """

    predict: Predict
    length: int
    padding: str

    def encode(self, tokenizer: Tokenizer, prompt: str) -> tuple[TextStates, str]:
        """The states of a prompt, and the part of the prompt that did not fit."""
        ids, lost = tokenizer.ids(prompt, self.length, self.padding)
        outputs = self.predict({"input_ids": ids})
        hidden = outputs.get("hidden_embeds", outputs.get("last_hidden_state"))
        if hidden is None:
            raise PipelineError(f"a text encoder gives {', '.join(outputs)}, but no hidden_embeds or last_hidden_state")
        return TextStates(hidden, outputs.get("pooled_outputs")), lost


def join(states: list[TextStates]) -> TextStates:
    """The states of several encoders side by side, as SDXL's UNet wants them; the last encoder's pooled output."""
    return TextStates(np.concatenate([state.hidden for state in states], axis=2), states[-1].pooled)


def channels_first(hidden: Floats) -> Floats:
    """(batch, tokens, width) → (batch, width, 1, tokens), the layout of the UNet's input."""
    return np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :])
