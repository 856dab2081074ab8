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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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

    def of(self, sums: Array) -> Array:
        """The score of (..., F) sums; where they mean nothing it is NaN or infinite."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.value(sums)


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
    return np.array([metric.of(metric.spread(one).sum(0)) for one in observed])


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
    """(items, 2) predicted and true -> (items, 3 · labels): right, predicted, true, each a 1 at its class.

    Of `labels` classes, or of as many more as a prediction says that there are.
    """
    most = np.nan_to_num(observed[:, :2], nan=-1).max(initial=-1)
    classes = np.arange(max(labels, int(most) + 1))
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
