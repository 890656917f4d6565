"""The CLIP text encoder: trained to carry all that a sentence says, before any picture is seen.

Each value of colour, shape and count, and of size, arrangement and background or that they are not said, has a
direction of its own, at right angles to all others; the state of the end token and of every padding token must be the
sum of what the sentence says. So a combination that was never trained on has the state that its parts give it, and the
UNet, which learns from the states, is shown nothing that belongs to a combination alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdbuild.shapes.scenes import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    COUNTS,
    LINES,
    RADII,
    SHAPES,
    Caption,
    Scene,
    describe,
    sample,
)
from sdbuild.shapes.training.loop import Course, Say, run

WIDTH = 96
LENGTH = 77
_COURSE = Course("text encoder", steps=1500, rate=2e-3, warm=0.1)
_BATCH = 48
_SEED = 2
_ATTRIBUTES: tuple[tuple[object, ...], ...] = (
    tuple(COLOURS),
    SHAPES,
    COUNTS,
    (None, *RADII),
    (None, *CELLS, *LINES),
    (None, *BACKGROUNDS),
)


def make(vocabulary: int) -> CLIPTextModel:
    """The untrained encoder; its end token has the highest number, as transformers expects of number 2."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=2,
            pad_token_id=vocabulary - 1,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, sentences: list[str]) -> Tensor:
    """Sentences → token numbers (N, 77), padded as SD 1.x pads."""
    encoded = tokenizer(sentences, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    numbers: Tensor = encoded.input_ids
    return numbers


def train(folder: Path, say: Say) -> CLIPTextModel:
    """Train from scratch with the tokenizer in `folder`."""
    torch.manual_seed(_SEED)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = make(len(tokenizer))
    random = np.random.default_rng(_SEED)
    directions = _directions()

    def loss(_: int) -> Tensor:
        scenes = [sample(random) for _ in range(_BATCH)]
        captions = [describe(content, random) for content in scenes]
        numbers = tokenize(tokenizer, [caption.text for caption in captions])
        states = model(numbers).last_hidden_state
        end = (numbers == len(tokenizer) - 1).int().argmax(dim=1)
        said = torch.tensor([_said(content, caption) for content, caption in zip(scenes, captions, strict=True)])
        meant = directions[said].sum(dim=1)[:, None]
        after = torch.arange(LENGTH) >= end[:, None]
        error: Tensor = (states - meant).square().mean(dim=2)[after].mean()
        return error

    run(_COURSE, model.parameters(), loss, say)
    return model.eval()


def _directions() -> Tensor:
    """A vector for each value of each attribute (values, width): at right angles, of mean 0; a sum deviates by 1."""
    values = sum(len(attribute) for attribute in _ATTRIBUTES)
    random = torch.randn(WIDTH, values + 1, generator=torch.Generator().manual_seed(_SEED))
    random[:, 0] = 1  # what the last norm of the encoder takes away
    orthonormal: Tensor = torch.linalg.qr(random).Q[:, 1:].T
    scaled: Tensor = orthonormal * (WIDTH / len(_ATTRIBUTES)) ** 0.5
    return scaled


def _said(scene: Scene, caption: Caption) -> list[int]:
    """The rows of `_directions` that a sentence says, one an attribute."""
    said = (
        scene.colour,
        scene.shape,
        scene.count,
        scene.size if caption.says_size else None,
        scene.arrangement if caption.says_arrangement else None,
        scene.background if caption.says_background else None,
    )
    rows, first = [], 0
    for values, value in zip(_ATTRIBUTES, said, strict=True):
        rows.append(first + values.index(value))
        first += len(values)
    return rows


@torch.no_grad()
def states(model: CLIPTextModel, tokenizer: CLIPTokenizer, sentences: list[str]) -> Tensor:
    """Sentences → the states (N, 77, width) that the UNet sees."""
    parts = [
        model(tokenize(tokenizer, sentences[start : start + 64])).last_hidden_state
        for start in range(0, len(sentences), 64)
    ]
    return torch.cat(parts)
