"""Scores as functions of sums over items, so that resampling the items is one matrix product.

A metric takes what was observed of a candidate at each item, spreads it into numbers that may be summed,
and makes the score of the sums:

    mean, accuracy      Σ score / Σ weight
    F1 of class k       2 tp / (predicted + true); macro: mean over the classes that are true or predicted
    MCC                 (c s - Σ t p) / √((s² - Σ p²)(s² - Σ t²)), c right of s items, t true and p predicted
    perplexity          exp(Σ nll / Σ tokens), the items being blocks of text
    Spearman            Pearson's correlation of the ranks that the items have among all of them

Observations are arrays (candidates, items, R); `labelled`, `scored` and `paired_values` make them. A candidate
with an observation that is not a number has the score NaN, and an interval of NaN.

`bootstrap` draws the items anew, the same for all candidates, so that two candidates are compared on each draw.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_COLUMNS = 512
"""Features that are summed by one matrix product."""

_COUNTS = 4_000_000
"""Numbers in the matrix of draws × items that is made at once."""


def _same(observed: Array) -> Array:
    return observed


@dataclass(frozen=True)
class Metric:
    """A score made of sums.

    `spread`: what was observed of one candidate, (items, R) -> (items, F), to be summed over items.
    `value`: the sums, (..., F) -> (...).
    `higher`: whether more is better. `bounds`: the least and the greatest score there can be.
    """

    name: str
    value: Callable[[Array], Array]
    spread: Callable[[Array], Array] = _same
    higher: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Samples:
    """Scores of N candidates and what they would have been on other draws of the same items.

    `value` (N,); `draws` (N, draws): column d of all candidates and of everything that was drawn with the same
    seed and stream is of the same items. `items`: how many there are to draw from.
    """

    value: Array
    draws: Array
    items: int
    higher: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def take(self, candidates: Sequence[int] | slice) -> Samples:
        """Some of the candidates."""
        return Samples(self.value[candidates], self.draws[candidates], self.items, self.higher, self.bounds)


@dataclass(frozen=True)
class Difference:
    """a - b for each candidate, its interval, and the share of draws in which a is better (a tie counts half)."""

    value: Array
    low: Array
    high: Array
    better: Array


def labelled(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N, items) predicted classes and (items,) true ones as observations (N, items, 2).

    A prediction that is no class (-1) is wrong and counts for none; NaN makes the candidate's score NaN.
    """
    return paired_values(predicted, truth)


def scored(scores: ArrayLike, weights: ArrayLike = 1.0) -> Array:
    """(N, items) scores, or sums of negative log-likelihoods, and their weights (or numbers of tokens)."""
    return paired_values(scores, weights)


def paired_values(values: ArrayLike, others: ArrayLike) -> Array:
    """(N, items) of each candidate's and what stands beside it, the same for all or (N, items): (N, items, 2)."""
    pair = np.broadcast_arrays(np.asarray(values, np.float64), np.asarray(others, np.float64))
    return np.stack(pair, axis=-1)


def mean(name: str, *, higher: bool = True, bounds: tuple[float, float] = (0.0, 1.0)) -> Metric:
    """The weighted mean of `scored` items: exact match, the share of right choices, a cosine."""
    return Metric(name, _ratio, higher=higher, bounds=bounds)


def accuracy() -> Metric:
    """The share of `labelled` items that are right."""
    return Metric("accuracy", _ratio, _right)


def macro_f1(labels: int) -> Metric:
    """The mean of the classes' F1, over those that are true or predicted somewhere; of `labelled` items."""
    return Metric("macro F1", _macro_f1, partial(_tally, labels=labels))


def f1(labels: int = 2, positive: int = 1) -> Metric:
    """F1 of one class, 0 where it is neither true nor predicted; of `labelled` items."""
    return Metric("F1", partial(_one_f1, positive=positive), partial(_tally, labels=labels))


def mcc(labels: int) -> Metric:
    """Matthews' correlation, for two classes or more; 0 where either side is of one class only."""
    return Metric("MCC", _mcc, partial(_tally, labels=labels), bounds=(-1.0, 1.0))


def perplexity() -> Metric:
    """exp(Σ nll / Σ tokens) of `scored` blocks."""
    return Metric("perplexity", _perplexity, higher=False, bounds=(1.0, np.inf))


def spearman() -> Metric:
    """The correlation of ranks, ties sharing theirs; draws keep the ranks of the full set of items."""
    return Metric("Spearman", _correlation, _rank_moments, bounds=(-1.0, 1.0))


def score(observed: Array, metric: Metric) -> Array:
    """(N, items, R) observations -> (N,) scores."""
    sums = np.stack([metric.spread(one).sum(0) for one in observed])
    return _quiet(metric.value, sums)


def bootstrap(observed: Array, metric: Metric, *, draws: int = 1000, seed: int = 0, stream: str = "") -> Samples:
    """Scores of N candidates on the items and on `draws` draws of as many items with replacement.

    `stream` names what the items are (the task): of one seed and stream, equal numbers of items are drawn alike;
    different streams are drawn independently, even where they have as many items.
    """
    count, items = observed.shape[:2]
    found = np.empty((count, draws))
    at = 0
    for counts in _resampled(items, draws, (seed, zlib.crc32(stream.encode()))):
        first = 0
        for block, width in _blocks(observed, metric):
            sums = (counts @ block).reshape(len(counts), width, -1)
            found[first : first + width, at : at + len(counts)] = _quiet(metric.value, sums).T
            first += width
        at += len(counts)
    return Samples(score(observed, metric), found, items, metric.higher, metric.bounds)


def interval(samples: Samples, level: float = 0.95) -> tuple[Array, Array]:
    """(low, high), each (N,): the percentiles between which `level` of the draws lie.

    Where they are one number (all items right, or a single item), the items seen do not say how much the unseen
    differ. Then up to a share p = 1 - (α/2)^(1/items) of all items might have escaped n draws, and the interval
    reaches as far as if they had the least or the greatest score: for a share of right items that is Clopper and
    Pearson's interval. So no interval has width zero.
    """
    tail = (1 - level) / 2
    known = np.isfinite(samples.value) & np.isfinite(samples.draws).any(1)
    low, high = np.full((2, len(known)), np.nan)
    if known.any():
        # One of the draws, never a number between two: they may be infinite.
        low[known] = np.nanquantile(samples.draws[known], tail, axis=1, method="lower")
        high[known] = np.nanquantile(samples.draws[known], 1 - tail, axis=1, method="higher")
    single = known & (low == high)
    unseen = 1 - tail ** (1 / samples.items)
    least, most = samples.bounds
    low[single] -= unseen * (low[single] - least)
    high[single] += unseen * (most - high[single])
    return low, high


def paired(a: Samples, b: Samples, level: float = 0.95) -> Difference:
    """a - b, candidate by candidate (or all against one), on the same draws."""
    gap = difference(a, b)
    low, high = interval(gap, level)
    sign = 1.0 if a.higher else -1.0
    better = (np.sign(gap.draws) * sign / 2 + 0.5).mean(1)
    return Difference(gap.value, low, high, better)


def difference(a: Samples, b: Samples) -> Samples:
    """a - b as samples of their own."""
    (least, most), (other_least, other_most) = a.bounds, b.bounds
    bounds = (least - other_most, most - other_least)
    with np.errstate(invalid="ignore"):
        return Samples(a.value - b.value, a.draws - b.draws, a.items, a.higher, bounds)


def ratio(samples: Samples, own: Samples) -> Samples:
    """Each candidate's score over that of one source, on the same draws; the inverse where less is better.

    So 1 is as good as the source and more is better. NaN where the source's own score is not above 0; draws in
    which it is not are left out of the interval.
    """
    pairs = [(samples.value, own.value), (samples.draws, own.draws)]
    value, draws = (_over(x, y) if samples.higher else _over(y, x) for x, y in pairs)
    edges = np.array(samples.bounds)
    with np.errstate(invalid="ignore", divide="ignore"):
        least, most = edges / own.value[0] if samples.higher else own.value[0] / edges[::-1]
    return Samples(value, draws, samples.items, True, (float(least), float(most)))


def average(tasks: Sequence[Samples]) -> Samples:
    """The mean over tasks, draw by draw; what it is the mean of must be better in the same direction."""
    assert len({task.higher for task in tasks}) == 1
    value, draws = (np.mean([getattr(task, name) for task in tasks], axis=0) for name in ("value", "draws"))
    least, most = (float(np.mean(bounds)) for bounds in zip(*(task.bounds for task in tasks), strict=True))
    return Samples(value, draws, min(task.items for task in tasks), tasks[0].higher, (least, most))


def _resampled(items: int, draws: int, seed: tuple[int, ...]) -> Iterator[Array]:
    """How often each item is drawn: (some draws, items), until there are `draws` of them."""
    generator = np.random.default_rng(seed)
    step = max(1, _COUNTS // items)
    for start in range(0, draws, step):
        some = min(step, draws - start)
        chosen = generator.integers(items, size=(some, items)) + items * np.arange(some)[:, None]
        yield np.bincount(chosen.ravel(), minlength=some * items).reshape(some, items).astype(np.float64)


def _blocks(observed: Array, metric: Metric) -> Iterator[tuple[Array, int]]:
    """Features of some candidates side by side, (items, some · F), and how many candidates they are."""
    width = max(1, _COLUMNS // metric.spread(observed[0]).shape[1]) if len(observed) else 1
    for start in range(0, len(observed), width):
        some = observed[start : start + width]
        yield np.concatenate([metric.spread(one) for one in some], axis=1), len(some)


def _quiet(function: Callable[[Array], Array], sums: Array) -> Array:
    """The value of sums, of which those that mean nothing become NaN or infinite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return function(sums)


def _over(a: Array, b: Array) -> Array:
    """a / b, NaN where one that it must be above 0 to compare with is not."""
    a, b = np.broadcast_arrays(a, b)
    found: Array = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return found


def _ratio(sums: Array) -> Array:
    found: Array = sums[..., 0] / sums[..., 1]
    return found


def _perplexity(sums: Array) -> Array:
    found: Array = np.exp(_ratio(sums))
    return found


def _right(observed: Array) -> Array:
    """(items, 2) predicted and true -> (items, 2) right or not, and 1."""
    right = np.where(np.isnan(observed).any(1), np.nan, observed[:, 0] == observed[:, 1])
    return np.stack([right, np.ones(len(observed))], axis=1)


def _tally(observed: Array, labels: int) -> Array:
    """(items, 2) predicted and true -> (items, 3 · labels): right, predicted, true, each a 1 at its class."""
    classes = np.arange(labels)
    predicted, true = (observed[:, [side]] == classes for side in (0, 1))
    found = np.concatenate([predicted & true, predicted, true], axis=1).astype(np.float64)
    found[np.isnan(observed).any(1)] = np.nan
    return found


def _counts(sums: Array) -> Any:
    """(..., 3 · labels) -> right, predicted and true, each (..., labels)."""
    return np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)


def _macro_f1(sums: Array) -> Array:
    right, predicted, true = _counts(sums)
    total = predicted + true
    found: Array = (2 * right / np.where(total == 0, 1, total)).sum(-1) / (total != 0).sum(-1)
    return found


def _one_f1(sums: Array, positive: int) -> Array:
    right, predicted, true = (part[..., positive] for part in _counts(sums))
    total = predicted + true
    return np.where(total == 0, 0.0, 2 * right / total)


def _mcc(sums: Array) -> Array:
    right, predicted, true = _counts(sums)
    items = true.sum(-1)
    # What was predicted as no class is one more class, that is never true.
    none = items - predicted.sum(-1)
    joint = right.sum(-1) * items - (true * predicted).sum(-1)
    spread = (items**2 - (predicted**2).sum(-1) - none**2) * (items**2 - (true**2).sum(-1))
    return np.where(spread == 0, 0.0, joint / np.sqrt(spread))


def _rank_moments(observed: Array) -> Array:
    """(items, 2) -> (items, 6): 1, x, y, x², y², xy of the centred ranks."""
    if np.isnan(observed).any():
        return np.full((len(observed), 6), np.nan)
    x, y = (_ranks(column) for column in observed.T)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _ranks(values: Array) -> Array:
    """Ranks less their mean; equal values share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Array = (last - (counts - 1) / 2)[where] - (len(values) + 1) / 2
    return found


def _correlation(sums: Array) -> Array:
    count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = (count * xx - x * x) * (count * yy - y * y)
    found: Array = (count * xy - x * y) / np.sqrt(spread)
    return found
