"""From prompts to the text states that the UNet attends to, with the bundle's own vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.clients.reading import Reader
from sdbuild.pipeline.errors import PipelineError
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


def encode(
    bundle: OpenBundle,
    reader: Reader,
    texts: Sequence[str],
    *,
    reduce_memory: bool = False,
    on_warning: Warn | None = None,
) -> dict[str, TextStates]:
    """The states of each text by all of a bundle's encoders, each of which is loaded once.

    Args:
        bundle: whose encoders.
        reader: reads the texts.
        texts: what is encoded.
        reduce_memory: forget each encoder when it has done its work.
        on_warning: called once with each of the reader's remarks.

    Raises:
        PipelineError: the bundle has no text encoder or no vocabulary.
    """
    states: dict[str, list[TextStates]] = {text: [] for text in texts}
    remarks: list[str] = []
    for name in bundle.text_encoders():
        model = bundle.model(name)
        feature = model.inputs[0]
        length = feature.shape[1]
        for text, found in states.items():
            tokens = reader.clip(text, length, name)
            found.append(_states(name, model.predict({feature.name: tokens.ids})))
            remarks += tokens.remarks
        if reduce_memory:
            bundle.release(name)
    if bundle.has(TRANSFORMER):
        width = bundle.unet_inputs()["encoder_hidden_states"].shape[1]
        joined = {text: _of_sd3(bundle, reader, text, found, width, remarks) for text, found in states.items()}
        if reduce_memory:
            bundle.release()
    else:
        joined = {text: _side_by_side(found) for text, found in states.items()}
    for remark in dict.fromkeys(remarks):
        if on_warning:
            on_warning(remark)
    return joined


def _states(name: str, outputs: Mapping[str, NDArray[Any]]) -> TextStates:
    hidden = outputs.get("hidden_embeds", outputs.get("last_hidden_state"))
    if hidden is None:
        raise PipelineError(f"{name} gives {', '.join(outputs)}, but no hidden_embeds or last_hidden_state")
    return TextStates(hidden, outputs.get("pooled_outputs"))


def _of_sd3(
    bundle: OpenBundle, reader: Reader, text: str, states: list[TextStates], width: int, remarks: list[str]
) -> TextStates:
    """The states of both CLIP encoders and T5 as Stable Diffusion 3's transformer wants them."""
    t5 = None
    if bundle.has(T5):
        model = bundle.model(T5)
        tokens = reader.t5(text, next(feature.shape[1] for feature in model.inputs if feature.name == "input_ids"))
        t5 = t5_states(model, tokens)
        remarks += tokens.remarks
    pooled = [state.pooled for state in states if state.pooled is not None]
    return TextStates(
        whole_text([state.hidden for state in states], t5, width), np.concatenate(pooled, axis=1) if pooled else None
    )


def _side_by_side(states: list[TextStates]) -> TextStates:
    """The states of several encoders as SDXL's UNet wants them, with the last encoder's pooled output."""
    return TextStates(np.concatenate([state.hidden for state in states], axis=2), states[-1].pooled)
