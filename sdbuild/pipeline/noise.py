"""Seeded noise: the same numbers as on a phone.

The Swift package draws latents from the Mersenne Twister with the polar Box-Muller method, which is NumPy's legacy
`RandomState`; its other source matches PyTorch's CPU generator. A seed therefore means the same picture here and there.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class NoiseSource(Protocol):
    """A stream of normal random numbers."""

    @property
    def generator(self) -> torch.Generator:
        """For schedulers that draw noise at every step."""

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, standard normal, with `shape`."""


class NumpyNoise:
    """NumPy's legacy generator.

    Schedulers can draw from PyTorch's generators alone, so that their noise has a stream of its own with the same seed;
    the Swift package has no scheduler that draws.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, drawn in double precision as the Swift package does."""
        return self._state.normal(size=shape).astype(np.float32)


class TorchNoise:
    """PyTorch's CPU generator, from which schedulers go on drawing as in diffusers."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, as `torch.randn` gives them."""
        values: NDArray[np.float32] = torch.randn(shape, generator=self.generator).numpy()
        return values


def noise_source(name: str, seed: int) -> NoiseSource:
    """The generator called `name` (one of `request.GENERATORS`), seeded."""
    return NumpyNoise(seed) if name == "numpy" else TorchNoise(seed)
