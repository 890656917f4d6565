"""Batches of scenes, each a function of its number alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdbuild.shapes.drawing import picture
from sdbuild.shapes.scenes import Scene, legible, sample

TRAINING_SEED = 1
"""Scene `n` of training is drawn with the generator of (1, n); judging uses another first number."""


def scene(number: int) -> tuple[Scene, np.random.Generator]:
    """A training scene, and its generator for what else is drawn at random."""
    random = np.random.default_rng((TRAINING_SEED, number))
    return sample(random), random


def legible_scenes() -> Iterator[tuple[Scene, np.random.Generator]]:
    """The training scenes that a picture can be asked for, without end."""
    for number in count():
        content, random = scene(number)
        if legible(content):
            yield content, random


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """8-bit RGB pictures (N, H, W, 3) → (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> NDArray[np.uint8]:
    """The inverse of `to_tensor`, rounded and clipped."""
    scaled = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def crops(batch: int, side: int, start: int = 0) -> Iterator[Tensor]:
    """Endless batches (`batch`, 3, `side`, `side`) of squares cut from training pictures, mostly around shapes."""
    number = start
    while True:
        squares = []
        for _ in range(batch):
            content, random = scene(number)
            number += 1
            whole = picture(content)
            x, y = content.centres[random.integers(content.count)]
            jitter = random.uniform(-side / 2, side / 2, 2)
            left, top = (
                int(np.clip(centre + offset - side / 2, 0, whole.shape[0] - side))
                for centre, offset in ((x, jitter[0]), (y, jitter[1]))
            )
            squares.append(whole[top : top + side, left : left + side])
        yield to_tensor(np.stack(squares))
