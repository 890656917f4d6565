"""Seeded random numbers: the same as on a phone, or as PyTorch's.

The Swift package draws latents from the Mersenne Twister with the polar Box-Muller method, which is NumPy's legacy
`RandomState`; its other sources stand for PyTorch's generators, on the processor and on Nvidia's GPUs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]

# Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011): Philox 4x32 with 10 rounds.
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class RandomSource(Protocol):
    """A stream of normal random numbers."""

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """The next numbers of the stream, standard normal, with `shape`."""

    def sample(self, mean: Floats, spread: Floats) -> Floats:
        """Numbers around each of `mean`, each with its own standard deviation."""


class NumpySource:
    """NumPy's legacy generator, in double precision."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """The next numbers of the stream."""
        return self._state.normal(size=shape).astype(np.float32)

    def sample(self, mean: Floats, spread: Floats) -> Floats:
        """Numbers around each of `mean`."""
        return self._state.normal(mean, spread).astype(np.float32)


class TorchSource:
    """PyTorch's generator on the processor, from which schedulers of diffusers can go on drawing."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """The next numbers of the stream, as `torch.randn` gives them."""
        values: Floats = torch.randn(shape, generator=self.generator).numpy()
        return values

    def sample(self, mean: Floats, spread: Floats) -> Floats:
        """Numbers around each of `mean`, as a distribution of diffusers is sampled."""
        return mean + spread * self.normal(mean.shape)


class NvidiaSource:
    """PyTorch's generator on Nvidia's GPUs: Philox, whose counter tells which call and which number of it.

    Source: NvRandomSource.swift of apple/ml-stable-diffusion at e12202c.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._calls = 0

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """The next numbers of the stream."""
        places = np.arange(int(np.prod(shape)), dtype=np.uint64)
        values = self._gaussian(np.full_like(places, self._calls), places)
        self._calls += 1
        return values.reshape(shape).astype(np.float32)

    def sample(self, mean: Floats, spread: Floats) -> Floats:
        """Numbers around each of `mean`, each by a call of its own."""
        calls = np.arange(self._calls, self._calls + mean.size, dtype=np.uint64)
        values = self._gaussian(calls, np.zeros_like(calls)).reshape(mean.shape)
        self._calls += mean.size
        return (values * spread.astype(np.float64) + mean).astype(np.float32)

    def _gaussian(self, calls: Words, places: Words) -> NDArray[np.float64]:
        """Box and Muller's transform of two random words."""
        zero = np.zeros_like(calls)
        first, second, *_ = philox((calls, zero, places, zero), (self._seed, 0))
        radius = np.sqrt(-2 * np.log(first.astype(np.float64) / 2**32 + 2**-33))
        values: NDArray[np.float64] = radius * np.sin(second.astype(np.float64) * (np.pi / 2**31) + np.pi / 2**32)
        return values


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Philox 4x32-10: four random words of 32 bits for each counter of four."""
    keys = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        first, second = counter[0] * _MULTIPLIERS[0], counter[2] * _MULTIPLIERS[1]
        counter = (
            (second >> _HALF) ^ counter[1] ^ keys[0],
            second & _WORD,
            (first >> _HALF) ^ counter[3] ^ keys[1],
            first & _WORD,
        )
        keys = (keys[0] + _KEY_STEPS[0]) & _WORD, (keys[1] + _KEY_STEPS[1]) & _WORD
    return counter
