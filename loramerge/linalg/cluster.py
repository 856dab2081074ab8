"""k-means on rank-one units through their Gram matrix: the features themselves never exist.

With G the inner products of the units, c a cluster of n_c units and S_ci = Σ_{j∈c} G_ij,

    |x_i − μ_c|² = G_ii − 2 S_ci / n_c + T_c / n_c²,   T_c = Σ_{i∈c} S_ci

so that Lloyd's iteration and moving one unit cost O(k) a unit, whatever the features' dimension is
(for products b aᵀ it is out · in, and G is the entrywise product of two small matrices).

`signed` clusters lines, not points: x and −x are the same, each unit takes the sign that brings it
closer to its cluster (|S_ci| above), and the signs are part of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GRAM_LIMIT = 8192
"""Above so many units a Gram matrix in float64 would pass 512 MB."""

_SAME = 1e-12
"""Units whose squared distance is below this share of the largest squared length are one point."""
_ROUNDS = 300


@dataclass(frozen=True)
class Clusters:
    """`labels` (N,) are 0 … k−1, numbered in the order of each cluster's first unit; none is empty.

    `signs` (N,) are ±1 (all 1 unless signed). `inertia` is the sum of squared distances to the means,
    `explained` one minus its share of the sum of squared lengths.
    """

    labels: Integers
    signs: Floats
    inertia: float
    explained: float

    @property
    def k(self) -> int:
        """The number of clusters; below what was asked for where units coincide."""
        return int(self.labels.max()) + 1


def kmeans(gram: Floats, k: int, *, n_init: int = 10, seed: int = 0, signed: bool = False) -> Clusters:
    """The best of `n_init` starts: seeds, Lloyd, then moving single units until no move helps (Hartigan).

    The first start takes farthest units as seeds, the others k-means++ with 2 + ln k candidates a seed.
    Units that coincide stay together, so there can be fewer than k clusters. The same G, k, n_init
    and seed give the same bytes; so put the units in an order of their own first (Units.ordered).

    Cost a start: O(N² k) for the first assignment, then O(N k) a pass and O(N) a unit that moves.
    """
    if k >= len(gram):
        return singletons(len(gram))
    random = np.random.default_rng(seed)
    best: _Partition | None = None
    for start in range(n_init):
        found = _Partition(gram, signed)
        found.begin(found.farthest(k) if start == 0 else found.plus_plus(k, random))
        found.lloyd()
        found.exchange()
        if best is None or found.inertia() < best.inertia() - found.slack:
            best = found
    assert best is not None
    inertia = best.inertia()
    return Clusters(_in_order(best.labels), best.signs, inertia, 1 - inertia / float(best.lengths.sum()))


def singletons(count: int) -> Clusters:
    """Every unit for itself."""
    return Clusters(np.arange(count), np.ones(count), 0.0, 1.0)


def minibatch(rows: Floats, k: int, *, n_init: int = 10, seed: int = 0) -> Clusters:
    """scikit-learn's MiniBatchKMeans on explicit features (N, d): for more units than a Gram can hold."""
    from sklearn.cluster import MiniBatchKMeans

    model: Any = MiniBatchKMeans(n_clusters=k, n_init=n_init, random_state=seed % 2**32, batch_size=4096)
    labels = _in_order(model.fit(rows).predict(rows))
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    means = np.add.reduceat(rows[order], starts) / counts[:, None]
    inertia = float(((rows - means[labels]) ** 2).sum())
    return Clusters(labels, np.ones(len(rows)), inertia, 1 - inertia / float((rows**2).sum()))


class _Partition:
    """A partition of N units into k clusters that moves by updating sums, not by recomputing them."""

    def __init__(self, gram: Floats, signed: bool) -> None:
        self.gram = gram
        self.signed = signed
        self.lengths = gram.diagonal().copy()
        self.all = np.arange(len(gram))
        top = float(self.lengths.max())
        self.slack = _SAME * top
        """A change of the inertia below this is rounding."""
        self.labels = np.full(len(gram), -1)
        self.signs = np.ones(len(gram))

    def begin(self, seeds: list[int]) -> None:
        """Assign every unit to the nearest seed."""
        k = len(seeds)
        near = self._close(self.gram[seeds])
        labels = (self.lengths[seeds][:, None] - 2 * near).argmin(0)
        self.sums = np.zeros((k, len(self.all)))
        self._relabel(self.all, labels, self._sign(self.gram[seeds][labels, self.all]))

    def lloyd(self) -> None:
        """Move all units to their nearest means at once, until none has a nearer one."""
        for _ in range(_ROUNDS):
            distances = self._distances()
            nearest = distances.argmin(0)
            gain = distances[self.labels, self.all] - distances[nearest, self.all]
            labels = np.where(gain > self.slack, nearest, self.labels)
            signs = self._sign(self.sums[labels, self.all])
            moved = np.flatnonzero((labels != self.labels) | (signs != self.signs))
            if not moved.size:
                return
            self._relabel(moved, labels[moved], signs[moved])

    def exchange(self) -> None:
        """Move one unit at a time wherever that lowers the inertia, until no move does."""
        for _ in range(_ROUNDS):
            costs, here = self._costs()
            gain = here - costs.min(0)
            moving = np.flatnonzero(gain > self.slack)
            if not moving.size:
                return
            for unit in moving[np.argsort(-gain[moving], kind="stable")]:
                self._improve(int(unit))

    def inertia(self) -> float:
        """Σ |x_i − μ|²."""
        filled = self.sizes > 0
        return max(0.0, float(self.lengths.sum() - (self.squares[filled] / self.sizes[filled]).sum()))

    def farthest(self, k: int) -> list[int]:
        """Seeds: the longest unit, then each time the one farthest from all seeds so far."""
        seeds = [int(self.lengths.argmax())]
        distances = self._from(seeds[0])
        while len(seeds) < k and distances.max() > 0:
            seeds.append(int(distances.argmax()))
            distances = np.minimum(distances, self._from(seeds[-1]))
        return seeds

    def plus_plus(self, k: int, random: np.random.Generator) -> list[int]:
        """Seeds drawn with probability ∝ squared distance; of a few draws the one that helps most."""
        seeds = [int(random.random() * len(self.all))]
        distances = self._from(seeds[0])
        tries = 2 + int(np.log(k))
        while len(seeds) < k and distances.max() > 0:
            ladder = distances.cumsum()
            drawn = np.searchsorted(ladder, random.random(tries) * ladder[-1], side="right").clip(max=len(ladder) - 1)
            left = np.minimum(distances, self._from(drawn))
            choice = int(left.sum(1).argmin())
            seeds.append(int(drawn[choice]))
            distances = left[choice]
        return seeds

    def _close(self, products: Floats) -> Floats:
        return np.abs(products) if self.signed else products

    def _sign(self, products: Floats) -> Floats:
        return np.where(products < 0, -1.0, 1.0) if self.signed else np.ones(len(products))

    def _from(self, units: Any) -> Floats:
        """Squared distances of all units from some; zero where only rounding is left."""
        own = self.lengths[units]
        found: Floats = self.lengths + np.expand_dims(own, -1) - 2 * self._close(self.gram[units])
        return np.where(found > self.slack, found, 0.0)

    def _relabel(self, units: Integers, labels: Integers, signs: Floats) -> None:
        k, here = len(self.sums), np.arange(len(units))
        change = np.zeros((k, len(units)))
        change[labels, here] = signs
        placed = self.labels[units] >= 0
        change[self.labels[units][placed], here[placed]] -= self.signs[units][placed]
        self.sums += change @ (self.gram if len(units) == len(self.all) else self.gram[units])
        self.labels[units], self.signs[units] = labels, signs
        self.sizes = np.bincount(self.labels, minlength=k).astype(float)
        self.squares = np.bincount(self.labels, self.signs * self.sums[self.labels, self.all], minlength=k)

    def _distances(self) -> Floats:
        """(k, N) squared distances to the means; infinite to an empty cluster."""
        sizes = np.maximum(self.sizes, 1)[:, None]
        found: Floats = self.lengths - 2 * self._close(self.sums) / sizes + self.squares[:, None] / sizes**2
        found[self.sizes == 0] = np.inf
        return found

    def _costs(self) -> tuple[Floats, Floats]:
        """(k, N) by how much each unit, taken out, raises the inertia where it is put; (N,) where it is."""
        own = (self.labels, self.all)
        rest = self.signs * self.sums[own] - self.lengths
        squares, sizes = self.squares[self.labels] - self.lengths - 2 * rest, self.sizes[self.labels] - 1
        found = _raised(self.lengths, self._close(self.sums), self.squares[:, None], self.sizes[:, None])
        found[own] = _raised(self.lengths, self._close(rest), squares, sizes)
        return found, _raised(self.lengths, rest, squares, sizes)

    def _improve(self, unit: int) -> None:
        """Move one unit to where it costs least, or turn it, if that helps as things stand now."""
        old, sign, length = self.labels[unit], self.signs[unit], self.lengths[unit]
        column = self.sums[:, unit]
        rest = sign * column[old] - length
        close, squares, sizes = self._close(column).copy(), self.squares.copy(), self.sizes.copy()
        close[old] = self._close(rest)
        squares[old] -= length + 2 * rest
        sizes[old] -= 1
        costs = _raised(length, close, squares, sizes)
        new = int(costs.argmin())
        if _raised(length, rest, squares[old], sizes[old]) - costs[new] <= self.slack:
            return
        turned = -sign if new == old else self._sign(column[new : new + 1])[0]
        self.sums[old] -= sign * self.gram[unit]
        self.sums[new] += turned * self.gram[unit]
        squares[new] += length + 2 * close[new]
        sizes[new] += 1
        self.labels[unit], self.signs[unit], self.squares, self.sizes = new, turned, squares, sizes


def _raised(length: Any, close: Any, squares: Any, sizes: Any) -> Any:
    """n/(n+1) · |x − μ|² for a cluster of n units without x; zero, up to rounding, for one of none."""
    return (length * sizes - 2 * close + squares / np.maximum(sizes, 1)) / (sizes + 1)


def _in_order(labels: Integers) -> Integers:
    """The same partition, its clusters numbered in the order of their first units."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    place = np.empty_like(first)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
