"""Exact weighted k-means on a line, fast enough to run on the histogram of every weight tensor of a model.

On a line the clusters of an optimal solution are intervals, so a solution is a list of boundaries b₀ = 0 < b₁ < … < b_k
= n between the sorted values, and the squared error is a sum of costs c(b₀, b₁) + … + c(b_{k-1}, b_k). The costs
satisfy the quadrangle inequality (Wu, "Optimal quantization by matrix searching", 1991; Grønlund et al., "Fast exact
k-means, k-medians and Bregman divergence clustering in 1D", 2017), and the usual dynamic program fills k rows of n
entries.

Here the program is filled only in a box around a solution that is already good. A solution whose boundaries are optimal
within the boxes [b_i, b_{i+1}] and [b_{i-1}, b_i] is optimal among all solutions: two paths can be exchanged where they
cross without making the sum larger, which pulls any better solution into the boxes (docs/explanation/palettization.md
has the proof). So a coarse solution is refined and then *certified* by about 2n entries in place of k·n, and where the
certificate finds something better, that is the next solution. The result is exact, not a local optimum.

Sums are taken in a fixed order in double precision of centred values, so the result does not depend on the machine's
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_STRIDE = 4
"""Rows of the dynamic program are filled coarse to fine; each finer pass divides the distance between rows by this."""

_NODES_PER_CLUSTER = 16
_REACH = 2
_PART = 8
"""How a good solution is found: the resolution of the coarse one, how many clusters far its boundaries may move at a
time, and which part of a cluster the finer solution's may. They change how long the search takes, not what it finds."""

_TOLERANCE = 1e-13
"""Differences of this relative size (of the total squared deviation) are rounding, not an improvement."""


@dataclass(frozen=True)
class Histogram:
    """Distinct values of a tensor in ascending order, and how often each occurs."""

    values: Floats
    counts: Floats


def cluster(histograms: Sequence[Histogram], clusters: int) -> list[Integers]:
    """Cluster each histogram optimally; all of them are worked on together.

    Args:
        histograms: at least one, none empty.
        clusters: how many clusters each histogram may have.

    Returns:
        For each histogram the boundaries of min(clusters, number of values) non-empty clusters: cluster `i` holds the
        values `boundaries[i]` up to but not including `boundaries[i + 1]`.
    """
    result: list[Integers | None] = [
        np.arange(len(histogram.values) + 1, dtype=np.int64) if len(histogram.values) <= clusters else None
        for histogram in histograms
    ]
    unproven = [index for index, boundaries in enumerate(result) if boundaries is None]
    if unproven:
        problems = [histograms[index] for index in unproven]
        for index, boundaries in zip(unproven, _solve(problems, clusters), strict=True):
            result[index] = boundaries
    return [boundaries for boundaries in result if boundaries is not None]


def means(histogram: Histogram, boundaries: Integers) -> Floats:
    """The centroid of each cluster."""
    centre = _centre(histogram)
    starts = boundaries[:-1]
    weights: Floats = np.add.reduceat(histogram.counts, starts)
    sums: Floats = np.add.reduceat(histogram.counts * (histogram.values - centre), starts)
    return centre + sums / weights


def squared_error(histogram: Histogram, centroids: Floats) -> float:
    """The squared error when every value is replaced by its nearest centroid (centroids ascending)."""
    distance = histogram.values - centroids[nearest(histogram.values, centroids)]
    return float(np.cumsum(histogram.counts * distance * distance)[-1])


def nearest(values: Floats, centroids: Floats) -> NDArray[np.intp]:
    """The index of the nearest centroid for each value, the lower one in a tie (centroids ascending)."""
    return np.searchsorted((centroids[:-1] + centroids[1:]) / 2, values, side="left")


class _Line:
    """Histograms laid one after another on one line, as prefix sums that give any cluster's share of the objective.

    A problem with n values has n + 1 nodes. The squared error of a cluster from node i to node j is the sum of its
    squared values less (S_j - S_i)² / (W_j - W_i); the first part is the same for every solution, so the second is
    maximised.
    """

    def __init__(self, sums: Floats, weights: Floats, sizes: Sequence[int], scales: Floats) -> None:
        self.sums = sums
        self.weights = weights
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.first = np.cumsum(self.sizes + 1) - (self.sizes + 1)
        self.last = self.first + self.sizes
        self.scales = scales

    @classmethod
    def of(cls, histograms: Sequence[Histogram]) -> _Line:
        sums, weights, scales = [], [], []
        for histogram in histograms:
            centred = histogram.values - _centre(histogram)
            sums += [np.zeros(1), np.cumsum(histogram.counts * centred)]
            weights += [np.zeros(1), np.cumsum(histogram.counts)]
            scales.append(np.cumsum(histogram.counts * centred * centred)[-1])
        sizes = [len(histogram.values) for histogram in histograms]
        return cls(np.concatenate(sums), np.concatenate(weights), sizes, np.asarray(scales))

    def only(self, nodes: Integers, sizes: Sequence[int]) -> _Line:
        """The same problems with boundaries allowed at some nodes only."""
        return _Line(self.sums[nodes], self.weights[nodes], sizes, self.scales)

    def objective(self, boundaries: Integers) -> Floats:
        """What each row of boundaries reaches."""
        sums = np.diff(self.sums[boundaries], axis=1)
        reached: Floats = np.sum(sums * sums / np.diff(self.weights[boundaries], axis=1), axis=1)
        return reached


def _solve(histograms: Sequence[Histogram], clusters: int) -> list[Integers]:
    """Coarse solution, refinement around it, certificate."""
    line = _Line.of(histograms)
    spreads = [_spread(histogram, clusters) for histogram in histograms]
    nodes = np.concatenate([first + spread for first, (spread, _) in zip(line.first, spreads, strict=True)])
    coarse = line.only(nodes, [len(spread) - 1 for spread, _ in spreads])
    start = coarse.first[:, None] + np.stack([guess for _, guess in spreads])
    rough = _settle(coarse, start, lambda best: (_shifted(best, -_REACH), _shifted(best, _REACH)))
    near = _settle(
        line, nodes[rough], lambda best: (_before(best, _shifted(best, -1)), _before(best, _shifted(best, 1)))
    )
    return list(_certify(line, near) - line.first[:, None])


def _settle(line: _Line, boundaries: Integers, boxes: Callable[[Integers], tuple[Integers, Integers]]) -> Integers:
    """Move each solution to the best one in the boxes around it until that helps no more."""
    boundaries = boundaries.copy()
    moving = np.arange(len(boundaries))
    while len(moving):
        current = boundaries[moving]
        found = _optimum(line, *_feasible(line, *boxes(current), moving))
        better = line.objective(found) > line.objective(current) + _TOLERANCE * line.scales[moving]
        boundaries[moving[better]] = found[better]
        moving = moving[better]
    return boundaries


def _before(boundaries: Integers, neighbours: Integers) -> Integers:
    """A part of the way to the neighbours."""
    return boundaries + (neighbours - boundaries) // _PART


def _shifted(boundaries: Integers, places: int) -> Integers:
    """Boundary i + places in place of boundary i, the ends repeated."""
    index = np.clip(np.arange(boundaries.shape[1]) + places, 0, boundaries.shape[1] - 1)
    return boundaries[:, index]


def _certify(line: _Line, boundaries: Integers) -> Integers:
    """Improve solutions until none of them can be improved."""
    boundaries = boundaries.copy()
    unproven = np.arange(len(boundaries))
    while len(unproven):
        current = boundaries[unproven]
        both = np.concatenate([unproven, unproven])
        low = np.concatenate([current, _shifted(current, -1)])
        high = np.concatenate([_shifted(current, 1), current])
        found = _optimum(line, *_feasible(line, low, high, both))
        reached = line.objective(found).reshape(2, -1)
        direction = np.argmax(reached, axis=0)
        columns = np.arange(len(unproven))
        gain = reached[direction, columns] - line.objective(current)
        better = gain > _TOLERANCE * line.scales[unproven]
        boundaries[unproven[better]] = found.reshape(2, len(unproven), -1)[direction, columns][better]
        unproven = unproven[better]
    return boundaries


def _feasible(line: _Line, low: Integers, high: Integers, problems: Integers) -> tuple[Integers, Integers]:
    """Shrink boxes so that every cluster can hold a value: boundary i stands i nodes or more from the start."""
    index = np.arange(low.shape[1])
    low = np.maximum(low, line.first[problems, None] + index)
    high = np.minimum(high, line.last[problems, None] - index[::-1])
    low[:, 0] = high[:, 0] = line.first[problems]
    low[:, -1] = high[:, -1] = line.last[problems]
    return low, high


def _optimum(line: _Line, low: Integers, high: Integers) -> Integers:
    """The best boundaries inside boxes, one row of `low` and `high` for each problem (or each box of a problem).

    Every box must be as `_feasible` leaves it, and boxes of neighbouring boundaries must ascend.
    """
    steps = low.shape[1] - 1
    column = _Column.of(line, low[:, 0], high[:, 0])
    reached = np.zeros(len(low))
    choices = []
    for step in range(1, steps + 1):
        rows = _Column.of(line, low[:, step], high[:, step])
        reached, chosen = _fill(column, reached, rows)
        choices.append(chosen)
        column = rows
    path = np.empty_like(low)
    path[:, steps] = high[:, steps]
    position = np.arange(len(low))  # the last boxes hold a single node
    for step in range(steps, 0, -1):
        position = choices[step - 1][position]
        path[:, step - 1] = low[:, step - 1] + position - _Column.offsets_of(low[:, step - 1], high[:, step - 1])
    return path


@dataclass(frozen=True)
class _Column:
    """One boundary's candidates: the nodes of its box in every problem, one box after another."""

    offsets: Integers
    sizes: Integers
    sums: Floats
    weights: Floats

    @staticmethod
    def offsets_of(low: Integers, high: Integers) -> Integers:
        sizes = high - low + 1
        offsets: Integers = np.cumsum(sizes) - sizes
        return offsets

    @classmethod
    def of(cls, line: _Line, low: Integers, high: Integers) -> _Column:
        offsets = cls.offsets_of(low, high)
        sizes = high - low + 1
        nodes = np.arange(int(sizes.sum())) + np.repeat(low - offsets, sizes)
        return cls(offsets, sizes, line.sums[nodes], line.weights[nodes])


def _fill(column: _Column, reached: Floats, rows: _Column) -> tuple[Floats, Integers]:
    """One step of the dynamic program in every box: for each row the best place in `column` to come from.

    The best place never moves back as the row advances, so a few rows of each box are filled first, and each of them
    bounds the rows that follow between it and the next.

    Returns:
        For each row what it reaches and where from.
    """
    best = np.empty(len(rows.sums))
    chosen = np.empty(len(rows.sums), dtype=np.int64)
    stride = 1
    while stride * _STRIDE < int(rows.sizes.max()):
        stride *= _STRIDE
    ends = rows.offsets + rows.sizes - 1
    places = np.minimum(rows.offsets + stride * np.arange(_STRIDE)[:, None], ends)
    best[places], chosen[places] = _best(
        column, reached, rows, places, column.offsets, column.offsets + column.sizes - 1
    )
    while stride > 1:
        coarser, stride = stride, stride // _STRIDE
        groups = -(-rows.sizes // coarser)
        firsts = np.cumsum(groups) - groups
        base = np.repeat(rows.offsets - firsts * coarser, groups) + np.arange(int(groups.sum())) * coarser
        end = np.repeat(ends, groups)
        after = base + coarser
        start = chosen[base]
        stop = np.where(
            after <= end, chosen[np.minimum(after, end)], np.repeat(column.offsets + column.sizes - 1, groups)
        )
        stop = np.maximum(start, stop)  # rounding may order equally good places the other way round
        places = np.minimum(base + stride * np.arange(1, _STRIDE)[:, None], end)
        best[places], chosen[places] = _best(column, reached, rows, places, start, stop)
    return best, chosen


def _best(
    column: _Column, reached: Floats, rows: _Column, places: Integers, start: Integers, stop: Integers
) -> tuple[Floats, Integers]:
    """The best of `start` … `stop` (inclusive) to come from, for groups of rows: the columns of `places`."""
    lengths = stop - start + 1
    offsets = np.cumsum(lengths) - lengths
    candidates = np.arange(int(lengths.sum())) + np.repeat(start - offsets, lengths)
    weights = np.repeat(rows.weights[places], lengths, axis=1)
    weights -= column.weights[candidates]
    values = np.repeat(rows.sums[places], lengths, axis=1)
    values -= column.sums[candidates]
    values *= values
    # A candidate at or behind its row would leave the cluster empty.
    empty = weights <= 0 if bool((rows.weights[places[0]] <= column.weights[stop]).any()) else None
    if empty is not None:
        weights[empty] = 1
    values /= weights
    values += reached[candidates]
    if empty is not None:
        values[empty] = -np.inf
    best = np.maximum.reduceat(values, offsets, axis=1)
    hits = np.flatnonzero(values == np.repeat(best, lengths, axis=1))
    if len(hits) > best.size:  # equally good places: the first one counts
        hits = hits[np.searchsorted(hits, offsets + np.arange(len(places))[:, None] * values.shape[1])]
    return best, candidates[hits.reshape(best.shape) % values.shape[1]]


def _spread(histogram: Histogram, clusters: int) -> tuple[Integers, Integers]:
    """Nodes for a coarse solution, and a first guess of the boundaries among them.

    An optimal quantizer has its clusters where the cube root of the density is large (Panter and Dite, "Quantization
    distortion in pulse-count modulation with nonuniform spacing of levels", 1951). A quarter of the nodes stands evenly
    among the values, so that there are always more nodes than boundaries.
    """
    size = len(histogram.values)
    gaps = np.diff(histogram.values)
    spacing = np.concatenate([gaps[:1], (gaps[:-1] + gaps[1:]) / 2, gaps[-1:]])
    measure = np.cumsum(np.cbrt(histogram.counts * spacing * spacing))
    count = _NODES_PER_CLUSTER * clusters
    if size <= count:
        nodes = np.arange(size + 1)
    else:
        dense = np.searchsorted(measure, np.linspace(0, measure[-1], count - count // 4)[1:-1]) + 1
        nodes = np.union1d(dense, np.arange(count // 4 + 1) * size // (count // 4))
    guess = np.searchsorted(measure, np.linspace(0, measure[-1], clusters + 1)[1:-1])
    start = np.concatenate([[0], np.searchsorted(nodes, guess), [len(nodes) - 1]])
    # Strictly ascending, with a node left for every cluster.
    index = np.arange(clusters + 1)
    start = np.maximum.accumulate(start - index) + index
    return nodes, np.minimum(start, len(nodes) - 1 - index[::-1])


def _centre(histogram: Histogram) -> float:
    total = np.cumsum(histogram.counts * histogram.values)[-1]
    return float(total / np.cumsum(histogram.counts)[-1])
