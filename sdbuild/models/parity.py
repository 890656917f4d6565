"""How far two results are apart, in one number with one definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def psnr(reference: ArrayLike, other: ArrayLike) -> float:
    """Peak signal-to-noise ratio in decibels: 20·log10(max|reference| / rmse).

    100 dB is an error of 10⁻⁵ of the largest value, about what float32 leaves after a network of this depth. Equal
    arrays give infinity; a NaN anywhere, or a finite error on an all-zero reference, gives minus infinity.

    Raises:
        ValueError: the shapes differ.
    """
    expected, actual = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if expected.shape != actual.shape:
        raise ValueError(f"shapes differ: {expected.shape} and {actual.shape}")
    error = np.sqrt(np.mean(np.square(expected - actual)))
    if error == 0:
        return float("inf")
    peak = np.max(np.abs(expected))
    if not np.isfinite(error) or peak == 0:
        return float("-inf")
    return float(20 * np.log10(peak / error))
