"""The multilingual projection: from the embeddings of Apple's contextual embedding models to a UNet's text states.

`NLContextualEmbedding` gives 512 numbers for each of 256 tokens of a text in one of many languages; a linear layer,
trained for one text encoder, makes that encoder's states of them. It is published as a TorchScript module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdbuild.checkpoints.checkpoint import ConstantWeight
from sdbuild.models.arguments import BuildArguments
from sdbuild.models.component import ComponentModel
from sdbuild.models.errors import ModelError
from sdbuild.tensors import TensorSpec

TOKENS, WIDTH = 256, 512
"""What the Swift package feeds: tokens of a text, and the width of an embedding."""

FILE = "projection.pt"
"""The module's name in its artifact."""


class MultilingualProjection(nn.Module):
    """A linear layer over embeddings, in the layout that the UNet wants its text states in."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.projection = nn.Conv2d(WIDTH, width, 1, bias=bias, device="meta")

    def forward(self, embeddings: Tensor) -> tuple[Tensor]:
        """(1, 256, 512) → (1, D, 1, 256)."""
        return (self.projection(embeddings.transpose(1, 2).unsqueeze(2)),)


def build_multilingual_projection(component: str, checkpoint: Path, arguments: BuildArguments) -> ComponentModel:
    """The projection in `checkpoint`, a folder with the TorchScript module.

    Raises:
        ModelError: the module is no linear layer over embeddings of 512 numbers.
    """
    tensors = {name: tensor.float() for name, tensor in load(checkpoint).state_dict().items()}
    matrices = [tensor for tensor in tensors.values() if tensor.squeeze().ndim == 2]
    others = [tensor for tensor in tensors.values() if tensor.squeeze().ndim == 1]
    if len(matrices) != 1 or len(tensors) != 1 + len(others) or len(others) > 1:
        held = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise ModelError(
            f"{checkpoint / FILE}: a multilingual projection is one linear layer; this module holds {held}."
        )
    matrix = matrices[0].squeeze()
    width = matrix.shape[0]
    if matrix.shape[1] != WIDTH or any(other.numel() != width for other in others):
        raise ModelError(
            f"{checkpoint / FILE}: the layer takes {matrix.shape[1]} numbers for each token; contextual embeddings "
            f"have {WIDTH}."
        )
    given = {"projection.weight": matrix.reshape(width, WIDTH, 1, 1)}
    if others:
        given["projection.bias"] = others[0].reshape(width)
    return ComponentModel(
        component=component,
        module=MultilingualProjection(width, bias=bool(others)).eval().requires_grad_(False),
        inputs=(
            TensorSpec(
                "nlcontextualembeddings_output",
                (1, TOKENS, WIDTH),
                "float32",
                "The contextual embeddings of a text, as NLContextualEmbedding gives them.",
            ),
        ),
        outputs=(
            TensorSpec(
                "encoder_hidden_states",
                (1, width, 1, TOKENS),
                "float32",
                "Text states in the UNet's layout, width before tokens.",
            ),
        ),
        weights={name: ConstantWeight(name, tensor.contiguous().numpy()) for name, tensor in given.items()},
    )


def load(checkpoint: Path) -> Any:
    """The TorchScript module itself.

    Raises:
        ModelError: the file is no TorchScript.
    """
    try:
        return torch.jit.load(checkpoint / FILE, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{checkpoint / FILE}: no TorchScript module ({str(error).splitlines()[0]}).") from error
