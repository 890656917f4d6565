from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.coreml import kmeans
from sdbuild.coreml.kmeans import Histogram

floats = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: float(np.float32(value)))


def histogram(values, counts=None):
    values, own = np.unique(np.asarray(values, float), return_counts=True)
    return Histogram(values, own.astype(float) if counts is None else np.asarray(counts, float)[: len(values)])


def error_of(histogram, boundaries):
    wide = histogram.values.astype(np.longdouble)
    total = np.longdouble(0)
    for start, stop in pairwise(boundaries):
        values, counts = wide[start:stop], histogram.counts[start:stop].astype(np.longdouble)
        total += (counts * (values - (counts * values).sum() / counts.sum()) ** 2).sum()
    return float(total)


def least_error(histogram, clusters):
    """The textbook dynamic program over all boundaries."""
    size = len(histogram.values)
    costs = np.full((size + 1, size + 1), np.inf)
    for start in range(size):
        for stop in range(start + 1, size + 1):
            costs[start, stop] = error_of(histogram, [start, stop])
    best = costs[0]
    for _ in range(min(clusters, size) - 1):
        best = (best[:, None] + costs).min(axis=0)
    return best[size]


def skewed(rng, size, kind):
    if kind == "normal":
        return rng.standard_normal(size)
    if kind == "heavy":
        return rng.standard_t(2, size)
    if kind == "clumps":
        return np.concatenate([rng.standard_normal(size // 3) * 10.0**scale + scale * 7 for scale in (-3, 0, 2)])
    return np.exp(3 * rng.standard_normal(size))


@settings(max_examples=60, deadline=None)
@given(st.lists(floats, min_size=1, max_size=24), st.sampled_from([1, 2, 4, 8, 16]), st.randoms(use_true_random=False))
def test_no_solution_is_better(values, clusters, random):
    data = histogram(values, [random.choice([1, 2, 50, 10_000]) for _ in values])

    (boundaries,) = kmeans.cluster([data], clusters)

    energy = float((data.counts * data.values**2).sum())
    assert error_of(data, boundaries) <= least_error(data, clusters) * (1 + 1e-9) + 1e-12 * energy
    assert boundaries[0] == 0
    assert boundaries[-1] == len(data.values)
    assert len(boundaries) == min(clusters, len(data.values)) + 1
    assert (np.diff(boundaries) > 0).all()


@pytest.mark.parametrize("kind", ["normal", "heavy", "clumps", "exponential"])
@pytest.mark.parametrize("clusters", [2, 4, 16, 64, 256])
def test_agrees_with_kmeans1d_on_half_precision_histograms(kind, clusters):
    from coremltools._deps import _kmeans1d

    values = np.clip(skewed(np.random.default_rng(clusters), 4096, kind), -6e4, 6e4)
    data = histogram(values.astype(np.float16))

    (boundaries,) = kmeans.cluster([data], clusters)

    reference = _kmeans1d.cluster(data.values, min(clusters, len(data.values)), weights=data.counts)
    changes = np.flatnonzero(np.diff(reference.clusters)) + 1
    expected = error_of(data, [0, *changes, len(data.values)])
    assert error_of(data, boundaries) <= expected * (1 + 1e-9) + 1e-13 * float((data.counts * data.values**2).sum())


def test_a_start_far_from_the_optimum_is_corrected(monkeypatch):
    """The certificate alone finds the optimum, however bad the solution that it is given."""
    data = histogram(np.random.default_rng(0).standard_normal(900))
    (expected,) = kmeans.cluster([data], 16)
    monkeypatch.setattr(kmeans, "_settle", lambda line, boundaries, boxes: np.arange(17)[None])

    (found,) = kmeans.cluster([data], 16)

    assert found.tolist() == expected.tolist()


def test_problems_do_not_influence_each_other():
    rng = np.random.default_rng(1)
    problems = [histogram(skewed(rng, size, kind)) for size, kind in [(700, "normal"), (40, "heavy"), (9, "clumps")]]

    together = kmeans.cluster(problems, 16)

    alone = [kmeans.cluster([problem], 16)[0] for problem in problems]
    assert [one.tolist() for one in together] == [one.tolist() for one in alone]


def test_nearest_takes_the_lower_entry_in_a_tie():
    assert kmeans.nearest(np.array([-1.0, 0.0, 0.5, 1.0, 9.0]), np.array([0.0, 1.0])).tolist() == [0, 0, 0, 1, 1]
