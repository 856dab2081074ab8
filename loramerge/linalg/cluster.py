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
_AT_ONCE = 2**18
"""Numbers in a table of starts × clusters × units; where fewer starts fill it, there are more starts."""


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
    Small problems get up to ten times the starts, since those cost next to nothing. Units that coincide
    stay together, so there can be fewer than k clusters. The same G, k, n_init and seed give the same
    bytes; so put the units in an order of their own first (Units.ordered).

    Cost a start: O(N² k) for the first assignment, then O(N k) for a pass or for a unit that moves.
    """
    count = len(gram)
    if k >= count:
        return singletons(count)
    starts = n_init * max(1, min(10, _AT_ONCE // (n_init * k * count)))
    search = _Search(gram, k, signed)
    search.begin(search.seeds(starts, np.random.default_rng(seed)))
    search.lloyd()
    labels, signs, inertia = search.exchange()
    first = int(np.flatnonzero(inertia <= inertia.min() + search.slack)[0])
    explained = 1 - float(inertia[first]) / float(search.lengths.sum())
    return Clusters(_in_order(labels[first]), signs[first], float(inertia[first]), explained)


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


class _Search:
    """Several partitions of N units into k clusters at once; the first axis of every table is the start.

    `labels`, `signs` (starts, N); `sums` S (starts, k, N), `squares` T and `sizes` n (starts, k). A unit
    that moves changes two rows of `sums`, so nothing is summed anew.
    """

    def __init__(self, gram: Floats, k: int, signed: bool) -> None:
        self.gram = gram
        self.k = k
        self.signed = signed
        self.lengths = gram.diagonal().copy()
        self.slack = _SAME * float(self.lengths.max())
        """A change of the inertia below this is rounding."""

    def seeds(self, starts: int, random: np.random.Generator) -> Integers:
        """(starts, k) units: first the farthest from each other, then draws of k-means++."""
        return np.concatenate([self._farthest()[None], self._plus_plus(starts - 1, random)])

    def begin(self, seeds: Integers) -> None:
        """Assign every unit to the nearest seed."""
        products = self.gram[seeds]
        labels = (self.lengths[seeds][:, :, None] - 2 * self._close(products)).argmin(1)
        self.labels, self.signs = labels, self._sign(_at(products, labels))
        self.sums = np.zeros(products.shape)
        self._sum(self._members())

    def lloyd(self) -> None:
        """Move all units to their nearest means at once, until none has a nearer one."""
        for _ in range(_ROUNDS):
            distances = self._distances()
            nearest = distances.argmin(1)
            better = _at(distances, self.labels) - _at(distances, nearest) > self.slack
            labels = np.where(better, nearest, self.labels)
            signs = self._sign(_at(self.sums, labels))
            moved = ((labels != self.labels) | (signs != self.signs)).any(0)
            if not moved.any():
                return
            before = self._members(moved)
            self.labels, self.signs = labels, signs
            self._sum(self._members(moved) - before, moved)

    def exchange(self) -> tuple[Integers, Floats, Floats]:
        """Of each start, move the unit that gains most, until none gains: (labels, signs, inertia)."""
        labels, signs, inertia = self.labels.copy(), self.signs.copy(), np.zeros(len(self.labels))
        going = np.arange(len(labels))
        costs, here = self._costs()
        while going.size:
            gain = here - costs.min(1)
            unit = gain.argmax(1)
            done = np.take_along_axis(gain, unit[:, None], 1)[:, 0] <= self.slack
            if done.any():
                labels[going[done]], signs[going[done]] = self.labels[done], self.signs[done]
                inertia[going[done]] = self._inertia()[done]
                going, costs, unit = going[~done], costs[~done], unit[~done]
                self._keep(~done)
            if going.size:
                here = self._move(unit, costs[np.arange(len(going)), :, unit].argmin(1), costs)
        return labels, signs, inertia

    def _farthest(self) -> Integers:
        chosen = [int(self.lengths.argmax())]
        distances = self._from(chosen[0])
        for _ in range(1, self.k):
            chosen.append(int(distances.argmax()))
            distances = np.minimum(distances, self._from(chosen[-1]))
        return np.array(chosen)

    def _plus_plus(self, starts: int, random: np.random.Generator) -> Integers:
        """Each seed is drawn ∝ squared distance from those before; of a few draws the one that helps most."""
        every, last = np.arange(starts), len(self.gram) - 1
        chosen = [(random.random(starts) * len(self.gram)).astype(int)]
        distances = self._from(chosen[0])
        for _ in range(1, self.k):
            ladder = distances.cumsum(1)
            drops = random.random((starts, 2 + int(np.log(self.k)))) * ladder[:, -1:]
            drawn = (ladder[:, None] <= drops[:, :, None]).sum(2).clip(max=last)
            left = np.minimum(distances[:, None], self._from(drawn))
            choice = left.sum(2).argmin(1)
            chosen.append(drawn[every, choice])
            distances = left[every, choice]
        return np.stack(chosen, axis=1)

    def _close(self, products: Floats) -> Floats:
        return np.abs(products) if self.signed else products

    def _sign(self, products: Floats) -> Floats:
        return np.where(products < 0, -1.0, 1.0) if self.signed else np.ones(products.shape)

    def _from(self, units: Any) -> Floats:
        """(…, N) squared distances from some units (…) to all; zero where only rounding is left."""
        found: Floats = self.lengths + self.lengths[units][..., None] - 2 * self._close(self.gram[units])
        return np.where(found > self.slack, found, 0.0)

    def _members(self, units: Any = slice(None)) -> Floats:
        """(starts, k, some units) the sign of a unit in its cluster, 0 elsewhere."""
        labels, signs = self.labels[:, units], self.signs[:, units]
        members: Floats = (labels[:, None] == np.arange(self.k)[:, None]) * signs[:, None]
        return members

    def _sum(self, change: Floats, units: Any = slice(None)) -> None:
        """Add what some units' memberships changed by to `sums`; count sizes and squares."""
        self.sums += (change.reshape(-1, change.shape[2]) @ self.gram[units]).reshape(self.sums.shape)
        offsets = self.labels + self.k * np.arange(len(change))[:, None]
        length, shape = len(change) * self.k, (len(change), self.k)
        self.sizes = np.bincount(offsets.ravel(), minlength=length).reshape(shape).astype(float)
        parts = (self.signs * _at(self.sums, self.labels)).ravel()
        self.squares = np.bincount(offsets.ravel(), parts, minlength=length).reshape(shape)

    def _distances(self) -> Floats:
        """(starts, k, N) squared distances to the means; infinite to an empty cluster."""
        sizes = np.maximum(self.sizes, 1)[:, :, None]
        found: Floats = self.lengths - 2 * self._close(self.sums) / sizes + self.squares[:, :, None] / sizes**2
        found[self.sizes == 0] = np.inf
        return found

    def _inertia(self) -> Floats:
        explained = (self.squares / np.maximum(self.sizes, 1)).sum(1)
        inertia: Floats = np.maximum(self.lengths.sum() - explained, 0.0)
        return inertia

    def _costs(self) -> tuple[Floats, Floats]:
        """(starts, k, N) by how much each unit, taken out, raises the inertia where it is put; where it is."""
        costs = _raised(self.lengths, self._close(self.sums), self.squares[:, :, None], self.sizes[:, :, None])
        return costs, self._stay(costs)

    def _stay(self, costs: Floats) -> Floats:
        """(starts, N) what each unit costs where it is; a signed one may turn there, which `costs` is told."""
        rest = self.signs * _at(self.sums, self.labels) - self.lengths
        squares = np.take_along_axis(self.squares, self.labels, 1) - self.lengths - 2 * rest
        sizes = np.take_along_axis(self.sizes, self.labels, 1) - 1
        turned = _raised(self.lengths, self._close(rest), squares, sizes)
        np.put_along_axis(costs, self.labels[:, None], turned[:, None], 1)
        return np.asarray(_raised(self.lengths, rest, squares, sizes))

    def _move(self, unit: Integers, new: Integers, costs: Floats) -> Floats:
        """Move one unit of each start; brings `costs` up to date and returns the costs of staying."""
        every = np.arange(len(unit))
        old, sign, length = self.labels[every, unit], self.signs[every, unit], self.lengths[unit]
        rows = self.gram[unit]
        for cluster, change in ((old, -sign), (new, None)):
            product = self.sums[every, cluster, unit]
            if change is None:
                change = np.where(new == old, -sign, self._sign(product))
            self.squares[every, cluster] += length + 2 * change * product
            self.sums[every, cluster] += change[:, None] * rows
            self.sizes[every, cluster] += 1 if cluster is new else -1
        self.labels[every, unit], self.signs[every, unit] = new, change
        for cluster in (old, new):
            sums = self._close(self.sums[every, cluster])
            table = self.squares[every, cluster][:, None], self.sizes[every, cluster][:, None]
            costs[every, cluster] = _raised(self.lengths, sums, *table)
        return self._stay(costs)

    def _keep(self, some: Any) -> None:
        self.labels, self.signs, self.sums = self.labels[some], self.signs[some], self.sums[some]
        self.squares, self.sizes = self.squares[some], self.sizes[some]


def _at(table: Floats, labels: Integers) -> Floats:
    """(starts, k, N) at each unit's label: (starts, N)."""
    return np.take_along_axis(table, labels[:, None], 1)[:, 0]


def _raised(length: Any, close: Any, squares: Any, sizes: Any) -> Any:
    """n/(n+1) · |x − μ|² for a cluster of n units without x; zero, up to rounding, for one of none."""
    return (length * sizes - 2 * close + squares / np.maximum(sizes, 1)) / (sizes + 1)


def _in_order(labels: Integers) -> Integers:
    """The same partition, its clusters numbered in the order of their first units."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    place = np.empty_like(first)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
