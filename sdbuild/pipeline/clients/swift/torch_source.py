"""PyTorch's random numbers as the Swift package makes them.

They are PyTorch's own up to rounding, but where a tensor's size is no multiple of 16, and where an encoded picture is
sampled: the package draws those numbers one by one, as PyTorch does for small tensors alone.

Source: TorchRandomSource.swift of apple/ml-stable-diffusion at e12202c.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_BLOCK = 16


class SwiftTorchSource:
    """A Mersenne Twister, read as PyTorch reads it."""

    def __init__(self, seed: int) -> None:
        seeded: Any = np.random.RandomState(seed).get_state(legacy=False)
        self._bits = np.random.MT19937()
        self._bits.state = {"bit_generator": "MT19937", "state": seeded["state"]}
        self._left: float | None = None

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """The next numbers of the stream, standard normal."""
        count = math.prod(shape)
        values = self._singly(count) if count < _BLOCK else self._in_blocks(count)
        return values.reshape(shape).astype(np.float32)

    def sample(self, mean: Floats, spread: Floats) -> Floats:
        """Numbers around each of `mean`, each with its own standard deviation."""
        values = self._singly(mean.size).reshape(mean.shape)
        return (values * spread.astype(np.float64) + mean).astype(np.float32)

    def _words(self, count: int) -> NDArray[np.uint64]:
        words: NDArray[np.uint64] = self._bits.random_raw(count)
        return words

    def _doubles(self, count: int) -> Doubles:
        pairs = self._words(2 * count).reshape(count, 2)
        bits = ((pairs[:, 0] << np.uint64(32)) | pairs[:, 1]) & np.uint64(2**53 - 1)
        values: Doubles = bits.astype(np.float64) / 2**53
        return values

    def _in_blocks(self, count: int) -> Doubles:
        values = (self._words(count) & np.uint64(2**24 - 1)).astype(np.float64) / 2**24
        whole = count - count % _BLOCK
        values[:whole] = _box_muller(values[:whole])
        if whole < count:
            values[-_BLOCK:] = _box_muller(self._doubles(_BLOCK))
        return values

    def _singly(self, count: int) -> Doubles:
        """As many numbers as asked for; they are made in pairs, and the second of a pair is kept for the next call."""
        kept = [] if self._left is None else [self._left]
        turns, squares = self._doubles(2 * ((count - len(kept) + 1) // 2)).reshape(-1, 2).T
        radius = np.sqrt(-2 * np.log(1 - squares))
        pairs = np.stack([radius * np.cos(2 * np.pi * turns), radius * np.sin(2 * np.pi * turns)], axis=1)
        values = np.concatenate([kept, pairs.ravel()])
        self._left = float(values[count]) if len(values) > count else None
        return values[:count]


def _box_muller(uniform: Doubles) -> Doubles:
    """Normal numbers, from the first and second half of each block of 16."""
    first, second = uniform.reshape(-1, 2, _BLOCK // 2).transpose(1, 0, 2)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    values: Doubles = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    return values
