"""The CLIP text encoder: trained to carry all that a sentence says, before any picture is seen.

From the end token's state, and from a padding token's, linear heads must read colour, shape and count, and size,
arrangement and background or that they are not said. The heads are thrown away; the UNet then learns from the states.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
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
_COURSE = Course("text encoder", steps=500, rate=2e-3, warm=0.1)
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
    heads = nn.ModuleList(nn.Linear(WIDTH, len(values)) for values in _ATTRIBUTES)
    random = np.random.default_rng(_SEED)

    def loss(_: int) -> Tensor:
        scenes = [sample(random) for _ in range(_BATCH)]
        captions = [describe(content, random) for content in scenes]
        numbers = tokenize(tokenizer, [caption.text for caption in captions])
        states = model(numbers).last_hidden_state
        end = (numbers == len(tokenizer) - 1).int().argmax(dim=1)
        later = end + (torch.rand(_BATCH) * (LENGTH - end)).long()
        labels = torch.tensor([_labels(content, caption) for content, caption in zip(scenes, captions, strict=True)])
        rows = torch.arange(_BATCH)
        parts = [
            functional.cross_entropy(head(states[rows, place]), labels[:, index])
            for place in (end, later)
            for index, head in enumerate(heads)
        ]
        return torch.stack(parts).sum()

    run(_COURSE, [*model.parameters(), *heads.parameters()], loss, say)
    return model.eval()


def _labels(scene: Scene, caption: Caption) -> list[int]:
    said = (
        scene.colour,
        scene.shape,
        scene.count,
        scene.size if caption.says_size else None,
        scene.arrangement if caption.says_arrangement else None,
        scene.background if caption.says_background else None,
    )
    return [values.index(value) for values, value in zip(_ATTRIBUTES, said, strict=True)]


@torch.no_grad()
def states(model: CLIPTextModel, tokenizer: CLIPTokenizer, sentences: list[str]) -> Tensor:
    """Sentences → the states (N, 77, width) that the UNet sees."""
    parts = [
        model(tokenize(tokenizer, sentences[start : start + 64])).last_hidden_state
        for start in range(0, len(sentences), 64)
    ]
    return torch.cat(parts)
