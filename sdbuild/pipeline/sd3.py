"""Stable Diffusion 3 in a bundle: its transformer behind the names of a UNet, and T5's half of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdbuild.pipeline.clients.reading import MaskedTokens
from sdbuild.pipeline.models import FeatureLike, RunnableModel
from sdbuild.tensors import TensorSpec

TRANSFORMER, T5 = "MultiModalDiffusionTransformer", "TextEncoderT5"
_UNETS_NAMES = {
    "latent_image_embeddings": "sample",
    "timestep": "timestep",
    "token_level_text_embeddings": "encoder_hidden_states",
    "pooled_text_embeddings": "text_embeds",
}
Floats = NDArray[np.float32]


class TransformerAsUnet:
    """The transformer, fed and read under the names that a UNet has.

    Attributes:
        inputs: what it takes, under those names.
    """

    def __init__(self, model: RunnableModel) -> None:
        self._model = model
        self._shapes = {feature.name: tuple(feature.shape) for feature in model.inputs}
        self.inputs: Sequence[FeatureLike] = as_unet(
            [TensorSpec(name, shape, "float32") for name, shape in self._shapes.items()]
        )

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run it once; what it predicts is the velocity, which stands in the place of noise."""
        values = {name: inputs[_UNETS_NAMES[name]].reshape(shape) for name, shape in self._shapes.items()}
        (predicted,) = self._model.predict(values).values()
        return {"noise_pred": predicted}


def as_unet(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The transformer's inputs under the names that a UNet has."""
    return tuple(TensorSpec(_UNETS_NAMES[spec.name], spec.shape, spec.dtype) for spec in specs)


def t5_states(model: RunnableModel, tokens: MaskedTokens) -> Floats:
    """T5's states of one text, (1, tokens, width)."""
    outputs = model.predict({"input_ids": tokens.ids, "attention_mask": tokens.mask})
    states: Floats = outputs["encoder_hidden_states"][:, :, 0, :].transpose(0, 2, 1)
    return states


def whole_text(clip: Sequence[Floats], t5: Floats | None, width: int) -> Floats:
    """What the transformer attends to, (1, 2 L, width), as the Swift package puts it together.

    Args:
        clip: both CLIP encoders' states, (1, L, …), which stand side by side and are filled up with zeros.
        t5: T5's states, cut to as many; zeros without it.
        width: of the whole text.
    """
    beside = np.concatenate(list(clip), axis=2)
    beside = np.pad(beside, ((0, 0), (0, 0), (0, width - beside.shape[2])))
    after = np.zeros_like(beside) if t5 is None else t5[:, : beside.shape[1]]
    whole: Floats = np.concatenate([beside, after], axis=1).astype(np.float32)
    return whole
