"""CLIP's text tower: token ids to the hidden states that a UNet attends to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdbuild.checkpoints.checkpoint import Checkpoint, ConstantWeight
from sdbuild.families import takes_penultimate
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.clip import CLIPEncoder
from sdbuild.models.component import ComponentModel, read_config
from sdbuild.models.errors import ModelError
from sdbuild.models.weights import map_weights
from sdbuild.tensors import TensorSpec, Weight

# transformers' defaults, for the fields that a config.json may leave out.
_DEFAULTS = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12} | {
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "projection_dim": 512,
    "eos_token_id": 49407,
}

# A masked score. Minus infinity is no float16 weight that survives an addition; this is far below any real score and
# leaves room for one.
_MASKED = -3e4

_PROJECTED = "CLIPTextModelWithProjection"

# In checkpoints, but not parameters: position ids were saved by old versions of transformers, the others belong to
# the whole CLIP of which a text tower was taken.
_IGNORED = ("embeddings.position_ids", "logit_scale")


class Embeddings(nn.Module):
    """Token and position embeddings, the positions cut to the sequence's length."""

    def __init__(self, vocabulary: int, width: int, length: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.ParameterDict({"weight": torch.empty(1, length, width)})

    def forward(self, input_ids: Tensor) -> Tensor:
        """(1, L) → (1, L, D)."""
        embedded: Tensor = self.token_embedding(input_ids) + self.position_embedding["weight"]
        return embedded


class TextTower(nn.Module):
    """transformers' `CLIPTextModel`."""

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.embeddings = Embeddings(config["vocab_size"], width, length)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(width, eps=config.get("layer_norm_eps", 1e-5))
        self.register_buffer("causal_mask", torch.empty(1, 1, length, length))
        # Configurations of before transformers 4.31 say 2, which was wrong: then it is the largest id that ends a text.
        self.end_token: int | None = None if config["eos_token_id"] == 2 else config["eos_token_id"]

    def forward(self, input_ids: Tensor, before: int) -> tuple[Tensor, Tensor, Tensor]:
        """(1, L) → states before the last layers and after all (1, L, D), and that at the end of the text (1, D)."""
        earlier, hidden = self.encoder(self.embeddings(input_ids), self.causal_mask, before)
        hidden = self.final_layer_norm(hidden)
        return earlier, hidden, hidden.index_select(1, self.end_of_text(input_ids)).squeeze(1)

    def end_of_text(self, input_ids: Tensor) -> Tensor:
        """The first position of the end token, (1,).

        The padding often is the same token, and Core ML leaves open which of several maxima it returns: subtracting
        the position makes the first one the only one.
        """
        ends = input_ids if self.end_token is None else (input_ids == self.end_token).to(torch.int32)
        length = input_ids.shape[1]
        return (ends * length - torch.arange(length, dtype=torch.int32, device=input_ids.device)).argmax(-1)


class TextEncoder(nn.Module):
    """The tower, its projection where there is one, and the two outputs that the Swift package reads.

    Args:
        config: the tower's configuration.
        length: tokens of a text.
        penultimate: whether the hidden states are those before the last layer.
        projected: whether the pooled state is projected.
        skipped: how many layers more the hidden states are taken before; those after the last layer are normalised,
            and so are those that stand for them.
    """

    def __init__(
        self, config: Mapping[str, Any], length: int, *, penultimate: bool, projected: bool, skipped: int = 0
    ) -> None:
        super().__init__()
        self.text_model = TextTower(config, length)
        self.text_projection = (
            nn.Linear(config["hidden_size"], config["projection_dim"], bias=False) if projected else nn.Identity()
        )
        self.penultimate, self.skipped = penultimate, skipped

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(1, L) → hidden states (1, L, D) and pooled output (1, P)."""
        earlier, last, pooled = self.text_model(input_ids, self.skipped + self.penultimate)
        if not self.penultimate:
            earlier = self.text_model.final_layer_norm(earlier) if self.skipped else last
        return earlier, self.text_projection(pooled)


def build_text_encoder(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The text encoder of `checkpoint`, whichever of a pipeline's two or three it is."""
    raw = read_config(checkpoint, "CLIPTextModel", _PROJECTED, "CLIPModel")
    # A CLIP configuration may hold the text tower's as a part.
    config = _DEFAULTS | {
        key: value for key, value in {**raw, **raw.get("text_config", {})}.items() if value is not None
    }
    length, longest = arguments.text_sequence_length, config["max_position_embeddings"]
    if length > longest:
        raise ModelError(f"{checkpoint}: a text of {length} tokens is longer than the encoder's {longest} positions.")
    projected = _PROJECTED in (raw.get("architectures") or ())
    penultimate = projected or takes_penultimate(component, arguments.family)
    skipped, layers = arguments.clip_skip, config["num_hidden_layers"]
    if skipped and skipped + penultimate > layers:
        raise ModelError(f"{checkpoint}: clip_skip is {skipped}, and the encoder has {layers} layers.")
    with torch.device("meta"):
        module = TextEncoder(config, length, penultimate=penultimate, projected=projected, skipped=skipped)
        module.eval().requires_grad_(False)
    weights = Checkpoint.open(checkpoint)
    return ComponentModel(
        component=component,
        module=module,
        inputs=(TensorSpec("input_ids", (1, length), "int32", "Token ids, padded to the sequence length."),),
        outputs=(
            TensorSpec(
                "hidden_embeds" if penultimate else "last_hidden_state",
                (1, length, config["hidden_size"]),
                "float32",
                _described(skipped + penultimate),
            ),
            TensorSpec(
                "pooled_outputs",
                (1, config["projection_dim"] if projected else config["hidden_size"]),
                "float32",
                "The last hidden state at the end of the text" + (", projected." if projected else "."),
            ),
        ),
        weights=map_weights(
            module, weights, lambda name: _rename(name, projected), _given(weights, length, config["hidden_size"])
        ),
    )


def _described(before: int) -> str:
    """What the hidden states are."""
    if not before:
        return "Hidden states after the last layer."
    return "Hidden states before the last layer." if before == 1 else f"Hidden states before the last {before} layers."


def _given(checkpoint: Checkpoint, length: int, width: int) -> dict[str, Weight]:
    """The weights that are not stored as the module wants them."""
    mask = np.triu(np.full((1, 1, length, length), _MASKED, np.float32), 1)
    given: dict[str, Weight] = {"text_model.causal_mask": ConstantWeight("text_model.causal_mask", mask)}
    name = "text_model.embeddings.position_embedding.weight"
    for stored in checkpoint:
        if _rename(stored, False) == name and checkpoint[stored].shape[1:] == (width,):
            given[name] = checkpoint[stored].rows(length).reshaped((1, length, width))
    return given


def _rename(name: str, projected: bool) -> str | None:
    """The parameter's name: transformers 5 dropped the prefix of a tower that stands alone."""
    if name.endswith(_IGNORED) or (name == "text_projection.weight" and not projected):
        return None
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"
