"""Seeded noise: the same numbers as on a phone.

The Swift package draws latents from the Mersenne Twister with the polar Box-Muller method, which is NumPy's legacy
`RandomState`; its other source matches PyTorch's CPU generator. A seed therefore means the same picture here and there.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sdbuild.pipeline.errors import PipelineError

GeneratorName = Literal["numpy", "torch"]
LARGEST_SEED = 2**32 - 1


class NoiseSource(Protocol):
    """A stream of normal random numbers."""

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, standard normal, with `shape`."""


class NumpyNoise:
    """NumPy's legacy generator."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, drawn in double precision as the Swift package does."""
        return self._state.normal(size=shape).astype(np.float32)


class TorchNoise:
    """PyTorch's CPU generator."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The next numbers of the stream, as `torch.randn` gives them."""
        values: NDArray[np.float32] = torch.randn(shape, generator=self._generator).numpy()
        return values


def noise_source(name: GeneratorName, seed: int) -> NoiseSource:
    """The generator called `name`, seeded.

    Raises:
        PipelineError: the seed is no 32-bit unsigned number, which is all that the Swift package takes.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise PipelineError(f"seed={seed}: a seed is a whole number from 0 to {LARGEST_SEED}")
    match name:
        case "numpy":
            return NumpyNoise(seed)
        case "torch":
            return TorchNoise(seed)
    raise PipelineError(f"generator={name}: write numpy (the Swift package's default) or torch")
