"""From prompts to the text states that the UNet attends to, with the bundle's own vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.bundle.byte_pairs import WORD_END
from sdbuild.bundle.tokenizer import END, START
from sdbuild.interface.swift.files import MERGES, VOCABULARY
from sdbuild.pipeline.errors import PipelineError
from sdbuild.pipeline.inversions import Inversions, expand, split
from sdbuild.pipeline.sd3 import T5, TRANSFORMER, t5_states, whole_text

if TYPE_CHECKING:
    from sdbuild.pipeline.bundle import OpenBundle

Floats = NDArray[np.float32]
Warn = Callable[[str], None]
"""Called with a sentence when something was cut or ignored."""


@dataclass(frozen=True)
class TextStates:
    """What text encoders say of one text.

    Attributes:
        hidden: (1, tokens, width).
        pooled: (1, width) of the last encoder, or None where it has no pooled output.
    """

    hidden: Floats
    pooled: Floats | None

    def last(self, width: int) -> TextStates:
        """The states of the last encoder alone, which is `width` wide: what SDXL's refiner attends to."""
        return TextStates(self.hidden[..., -width:], self.pooled)

    def zeros(self) -> TextStates:
        """Zeros in the place of every state."""
        return TextStates(np.zeros_like(self.hidden), None if self.pooled is None else np.zeros_like(self.pooled))


class Tokenizer:
    """CLIP's byte-pair encoding over the bundle's `vocab.json` and `merges.txt`.

    Args:
        resources: the folder with both files.
        inversions: the textual inversions that `bundle.json` lists, whose tokens CLIP's own rules would cut apart.
    """

    def __init__(self, resources: Path, inversions: Inversions = ()) -> None:
        missing = [name for name in (VOCABULARY, MERGES) if not (resources / name).is_file()]
        if missing:
            raise PipelineError(
                f"{resources} lacks {' and '.join(missing)}; the recipe needs text_encoder among its components"
            )
        from transformers import CLIPTokenizer

        self._inversions = inversions
        self._tokenizer = CLIPTokenizer(vocab=str(resources / VOCABULARY), merges=str(resources / MERGES))

    def ids(self, text: str, length: int, padding: str) -> tuple[NDArray[np.int32], str]:
        """Token ids, (1, length), and the end of the text that did not fit.

        Args:
            text: any text.
            length: tokens of the text encoder, start and end of text included.
            padding: the token that fills the rest, such as `<|endoftext|>`, or `!` for OpenCLIP's encoders.
        """
        words = [
            number for part in split(expand(text, self._inversions), self._inversions) for number in self._ids(*part)
        ]
        kept, lost = words[: length - 2], words[length - 2 :]
        start, end, fill = (self._tokenizer.convert_tokens_to_ids(token) for token in (START, END, padding))
        row = [start, *kept, end]
        row += [fill] * (length - len(row))
        return np.array([row], np.int32), str(self._tokenizer.decode(lost)) if lost else ""

    def _ids(self, text: str, is_new_token: bool) -> list[int]:
        if is_new_token:
            return [self._tokenizer.convert_tokens_to_ids(text.lower() + WORD_END)]
        found: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return found


def encode(
    bundle: OpenBundle, texts: Sequence[str], *, reduce_memory: bool = False, on_warning: Warn | None = None
) -> dict[str, TextStates]:
    """The states of each text by all of a bundle's encoders, each of which is loaded once.

    Raises:
        PipelineError: the bundle has no text encoder or no vocabulary.
    """
    encoders = list(bundle.text_encoders())
    tokenizer = Tokenizer(bundle.resources, bundle.document.get("textual_inversions", ()))
    states: dict[str, list[TextStates]] = {text: [] for text in texts}
    cut: dict[str, str] = {}
    for name, padding in encoders:
        model = bundle.model(name)
        feature = model.inputs[0]
        length = feature.shape[1]
        for text, found in states.items():
            ids, lost = tokenizer.ids(text, length, padding)
            found.append(_states(name, model.predict({feature.name: ids})))
            if lost:
                cut[text] = f"{name} takes {length} tokens; this end of the text was left out: {lost!r}"
        if reduce_memory:
            bundle.release(name)
    if bundle.has(TRANSFORMER):
        width = bundle.unet_inputs()["encoder_hidden_states"].shape[1]
        joined = {text: _of_sd3(bundle, text, found, width, cut) for text, found in states.items()}
        if reduce_memory:
            bundle.release()
    else:
        joined = {text: _side_by_side(found) for text, found in states.items()}
    for warning in cut.values():
        if on_warning:
            on_warning(warning)
    return joined


def _states(name: str, outputs: Mapping[str, NDArray[Any]]) -> TextStates:
    hidden = outputs.get("hidden_embeds", outputs.get("last_hidden_state"))
    if hidden is None:
        raise PipelineError(f"{name} gives {', '.join(outputs)}, but no hidden_embeds or last_hidden_state")
    return TextStates(hidden, outputs.get("pooled_outputs"))


def _of_sd3(bundle: OpenBundle, text: str, states: list[TextStates], width: int, cut: dict[str, str]) -> TextStates:
    """The states of both CLIP encoders and T5 as Stable Diffusion 3's transformer wants them."""
    t5 = None
    if bundle.has(T5):
        t5, lost = t5_states(bundle.resources, bundle.model(T5), text)
        if lost:
            cut[text] = f"{T5} left out this end of the text: {lost!r}"
    pooled = [state.pooled for state in states if state.pooled is not None]
    return TextStates(
        whole_text([state.hidden for state in states], t5, width), np.concatenate(pooled, axis=1) if pooled else None
    )


def _side_by_side(states: list[TextStates]) -> TextStates:
    """The states of several encoders as SDXL's UNet wants them, with the last encoder's pooled output."""
    return TextStates(np.concatenate([state.hidden for state in states], axis=2), states[-1].pooled)
