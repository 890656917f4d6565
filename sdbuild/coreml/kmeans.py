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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_STRIDE = 8
"""Rows of the dynamic program are filled coarse to fine; each finer pass divides the distance between rows by this."""

_NODES_PER_CLUSTER = 16
_REACH = 3
_NEIGHBOURS = 2
"""The coarse solution: its resolution, how many clusters far a boundary may move at a time, and how many coarse nodes
far the finer solution is looked for. They change how long the search takes, not what it finds."""

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
    open_problems = [index for index, boundaries in enumerate(result) if boundaries is None]
    if open_problems:
        problems = [histograms[index] for index in open_problems]
        for index, boundaries in zip(open_problems, _solve(problems, clusters), strict=True):
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
    best = coarse.first[:, None] + np.stack([start for _, start in spreads])
    reached = np.full(len(best), -np.inf)
    while True:
        found = _optimum(coarse, *_feasible(coarse, _shifted(best, -_REACH), _shifted(best, _REACH)))
        improved = coarse.objective(found)
        if not np.any(improved > reached + _TOLERANCE * line.scales):
            break
        best, reached = found, improved
    # The finer optimum is expected among the neighbours of the coarse one; the certificate does not rely on it.
    low = nodes[np.maximum(best - _NEIGHBOURS, coarse.first[:, None])]
    high = nodes[np.minimum(best + _NEIGHBOURS, coarse.last[:, None])]
    exact = _certify(line, _optimum(line, *_feasible(line, low, high)))
    return list(exact - line.first[:, None])


def _shifted(boundaries: Integers, places: int) -> Integers:
    """Boundary i + places in place of boundary i, the ends repeated."""
    index = np.clip(np.arange(boundaries.shape[1]) + places, 0, boundaries.shape[1] - 1)
    return boundaries[:, index]


def _certify(line: _Line, boundaries: Integers) -> Integers:
    """Improve solutions until none of them can be improved."""
    boundaries = boundaries.copy()
    open_problems = np.arange(len(boundaries))
    while len(open_problems):
        current = boundaries[open_problems]
        both = np.concatenate([open_problems, open_problems])
        low = np.concatenate([current, _shifted(current, -1)])
        high = np.concatenate([_shifted(current, 1), current])
        found = _optimum(line, *_feasible(line, low, high, both))
        reached = line.objective(found).reshape(2, -1)
        direction = np.argmax(reached, axis=0)
        columns = np.arange(len(open_problems))
        gain = reached[direction, columns] - line.objective(current)
        better = gain > _TOLERANCE * line.scales[open_problems]
        boundaries[open_problems[better]] = found.reshape(2, len(open_problems), -1)[direction, columns][better]
        open_problems = open_problems[better]
    return boundaries


def _feasible(
    line: _Line, low: Integers, high: Integers, problems: Integers | None = None
) -> tuple[Integers, Integers]:
    """Shrink boxes so that every cluster can hold a value: boundary i stands i nodes or more from the start."""
    chosen = np.arange(len(line.sizes)) if problems is None else problems
    index = np.arange(low.shape[1])
    low = np.maximum(low, line.first[chosen, None] + index)
    high = np.minimum(high, line.last[chosen, None] - index[::-1])
    low[:, 0] = high[:, 0] = line.first[chosen]
    low[:, -1] = high[:, -1] = line.last[chosen]
    return low, high


def _optimum(line: _Line, low: Integers, high: Integers) -> Integers:
    """The best boundaries inside boxes, one row of `low` and `high` for each problem (or each box of a problem).

    Every box must be as `_feasible` leaves it, and boxes of neighbouring boundaries must ascend.
    """
    steps = low.shape[1] - 1
    reached = np.zeros(len(low))
    choices: list[tuple[Integers, Integers]] = []
    for step in range(1, steps + 1):
        reached, chosen, offsets = _fill(
            line, reached, low[:, step - 1], high[:, step - 1], low[:, step], high[:, step]
        )
        choices.append((chosen, offsets))
    path = np.empty_like(low)
    path[:, steps] = high[:, steps]
    for step in range(steps, 0, -1):
        chosen, offsets = choices[step - 1]
        path[:, step - 1] = chosen[offsets + path[:, step] - low[:, step]]
    return path


def _fill(
    line: _Line, reached: Floats, column_low: Integers, column_high: Integers, row_low: Integers, row_high: Integers
) -> tuple[Floats, Integers, Integers]:
    """One step of the dynamic program in every box: for each row the best column to come from.

    The best column never moves back as the row advances, so rows filled coarsely bound the rows between them.

    Returns:
        The objective and the best column for each row of each box, one box after another, and where each box begins.
    """
    column_sizes = column_high - column_low + 1
    column_offsets = np.cumsum(column_sizes) - column_sizes
    sizes = row_high - row_low + 1
    offsets = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    box = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(total) - offsets[box]  # from the box's first row
    shift = column_offsets - column_low  # from a node to its place in `reached`
    best = np.empty(total)
    chosen = np.empty(total, dtype=np.int64)

    stride = 1
    while stride * _STRIDE < int(sizes.max()):
        stride *= _STRIDE
    coarser = 0
    while stride:
        due = rows % stride == 0
        if coarser:
            due &= rows % coarser != 0
        places = np.flatnonzero(due)
        where, row = box[places], rows[places]
        node = row_low[where] + row
        if coarser:
            before = offsets[where] + row // coarser * coarser
            after = before + coarser
            inside = after < offsets[where] + sizes[where]
            start = chosen[before]
            stop = np.where(inside, chosen[np.where(inside, after, before)], column_high[where])
            stop = np.maximum(start, stop)  # rounding may order equally good columns the other way round
        else:
            start, stop = column_low[where], column_high[where]
        best[places], chosen[places] = _best_columns(
            line, reached, node, start, np.minimum(stop, node - 1), shift[where]
        )
        coarser, stride = stride, stride // _STRIDE
    return best, chosen, offsets


def _best_columns(
    line: _Line, reached: Floats, nodes: Integers, start: Integers, stop: Integers, shift: Integers
) -> tuple[Floats, Integers]:
    """For each node the best predecessor among `start` … `stop` (inclusive), and what it reaches."""
    lengths = stop - start + 1
    offsets = np.cumsum(lengths) - lengths
    columns = np.arange(int(lengths.sum())) + np.repeat(start - offsets, lengths)
    sums = np.repeat(line.sums[nodes], lengths)
    sums -= line.sums[columns]
    weights = np.repeat(line.weights[nodes], lengths)
    weights -= line.weights[columns]
    sums *= sums
    sums /= weights
    sums += reached[columns + np.repeat(shift, lengths)]
    best = np.maximum.reduceat(sums, offsets)
    hits = np.flatnonzero(sums == np.repeat(best, lengths))
    return best, columns[hits[np.searchsorted(hits, offsets)]]


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
