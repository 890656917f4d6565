"""Random numbers: NumPy's, PyTorch's on both kinds of processors, and PyTorch's as the Swift package makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from sdbuild.pipeline.clients.swift.torch_source import SwiftTorchSource
from sdbuild.pipeline.random_sources import NumpySource, NvidiaSource, RandomSource, TorchSource, philox

SHAPE = (1, 4, 16, 8)
SEEDS = (0, 93, 2**32 - 1)
SOURCES: dict[str, Callable[[int], RandomSource]] = {
    "numpy": NumpySource,
    "torch": TorchSource,
    "torch of the package": SwiftTorchSource,
    "nvidia": NvidiaSource,
}
# kat_vectors of Random123 (Salmon et al. 2011): counter, key, result.
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)
# What `torch.randn((3, 4), device="cuda")` gives after seed 0, as modules/rng_philox.py of
# AUTOMATIC1111/stable-diffusion-webui states it.
OF_CUDA = """
-0.92466259 -0.42534415 -2.6438457   0.14518388
-0.12086647 -0.57972564 -0.62285122 -0.32838709
-1.07454231 -0.36314407 -1.67105067  2.26550497
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_numpys_numbers_are_the_legacy_generators(seed: int) -> None:
    source, state = NumpySource(seed), np.random.RandomState(seed)
    for _ in range(3):
        np.testing.assert_array_equal(source.normal(SHAPE), state.normal(size=SHAPE).astype(np.float32))


@pytest.mark.parametrize("seed", SEEDS)
def test_torchs_numbers_are_randn(seed: int) -> None:
    source, generator = TorchSource(seed), torch.Generator().manual_seed(seed)
    for _ in range(3):
        np.testing.assert_array_equal(source.normal(SHAPE), torch.randn(SHAPE, generator=generator).numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_packages_torch_is_torch_up_to_rounding(seed: int) -> None:
    """For whole blocks, for a few numbers, and one by one, which in PyTorch are small tensors in double precision."""
    source, generator = SwiftTorchSource(seed), torch.Generator().manual_seed(seed)
    for shape in (SHAPE, (3, 5), SHAPE, (7,), (1,)):
        theirs = torch.randn(shape, generator=generator).numpy()
        np.testing.assert_allclose(source.normal(shape), theirs, atol=2e-6)
    mean, spread = (np.random.RandomState(seed).uniform(0.5, 2, 45).astype(np.float32) for seed in (1, 2))
    singly = [torch.randn(15, dtype=torch.float64, generator=generator).numpy() for _ in range(3)]
    np.testing.assert_allclose(source.sample(mean, spread), mean + spread * np.concatenate(singly), atol=1e-5)


def test_the_packages_torch_ends_an_odd_size_in_its_own_way() -> None:
    """The last 16 numbers of a size that is no multiple of 16 come from doubles there, and from floats in PyTorch."""
    ours, theirs = SwiftTorchSource(5).normal((100,)), torch.randn(100, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(ours[:84], theirs.numpy()[:84], atol=2e-6)
    assert np.abs(ours[84:] - theirs.numpy()[84:]).min() > 1e-3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    words = [np.array([int(word, 16)], np.uint64) for word in counter.split()]
    first, second = (int(word, 16) for word in key.split())
    found = philox((words[0], words[1], words[2], words[3]), (first, second))
    assert " ".join(f"{int(word[0]):08x}" for word in found) == expected


def test_nvidias_numbers_are_cudas() -> None:
    expected = np.array(OF_CUDA.split(), float).reshape(3, 4)
    np.testing.assert_allclose(NvidiaSource(0).normal((3, 4)), expected, atol=2e-7)


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10 on whole numbers, as Salmon et al. write it."""
    left, right = [counter[0], counter[2]], [counter[1], counter[3]]
    for number in range(10):
        products = [left[0] * 0xD2511F53, left[1] * 0xCD9E8D57]
        keys = [(key[0] + number * 0x9E3779B9) % 2**32, (key[1] + number * 0xBB67AE85) % 2**32]
        left = [(products[1] // 2**32) ^ right[0] ^ keys[0], (products[0] // 2**32) ^ right[1] ^ keys[1]]
        right = [products[1] % 2**32, products[0] % 2**32]
    return [left[0], right[0], left[1], right[1]]


def plain_normals(seed: int, calls: Iterator[tuple[int, int]]) -> list[float]:
    found = []
    for call, place in calls:
        words = plain_philox([call, 0, place, 0], [seed, 0])
        angle = 2 * math.pi * (words[1] + 0.5) / 2**32
        found.append(math.sqrt(-2 * math.log((words[0] + 0.5) / 2**32)) * math.sin(angle))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_nvidias_numbers_count_calls_and_places(seed: int) -> None:
    """Pictures are one call each; of an encoded picture's sample, every number is."""
    source = NvidiaSource(seed)
    found = [source.normal((3, 5)).ravel(), source.normal((4,))]
    mean, spread = np.full((2, 3), 0.25, np.float32), np.full((2, 3), 2, np.float32)
    found.append(source.sample(mean, spread).ravel())
    found.append(source.normal((2,)))
    places = [(0, place) for place in range(15)] + [(1, place) for place in range(4)]
    expected = np.array(plain_normals(seed, iter([*places, *((call, 0) for call in range(2, 8)), (8, 0), (8, 1)])))
    expected[19:25] = expected[19:25] * 2 + 0.25
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)


@pytest.mark.parametrize("name", SOURCES)
def test_a_sample_has_its_mean_and_spread(name: str) -> None:
    values = SOURCES[name](3).sample(np.full(20000, 5, np.float32), np.full(20000, 0.5, np.float32))
    assert values.dtype == np.float32
    assert abs(values.mean() - 5) < 0.02
    assert abs(values.std() - 0.5) < 0.02
