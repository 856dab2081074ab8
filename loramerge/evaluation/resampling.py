"""What scores would have been on other items of the same kind: bootstrap, intervals, differences, ratios.

Items are drawn anew, the same for all candidates, so that two candidates are compared on each draw.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from loramerge.evaluation.metrics import Array, Metric, score

_COLUMNS = 512
"""Features that are summed by one matrix product."""

_COUNTS = 4_000_000
"""Numbers in the matrix of draws × items that is made at once."""


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
            found[first : first + width, at : at + len(counts)] = metric.of(sums).T
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


def difference(a: Samples, b: Samples) -> Samples:
    """a - b as samples of their own."""
    (least, most), (other_least, other_most) = a.bounds, b.bounds
    bounds = (least - other_most, most - other_least)
    with np.errstate(invalid="ignore"):
        return Samples(a.value - b.value, a.draws - b.draws, a.items, a.higher, bounds)


def behind(samples: Samples, among: Sequence[int]) -> tuple[int, Samples] | None:
    """The best of some candidates, and how much worse all are than it; None where none of those has a score.

    More is worse, whatever the direction of the scores.
    """
    known = [at for at in among if np.isfinite(samples.value[at])]
    if not known:
        return None
    sign = 1 if samples.higher else -1
    best = max(known, key=lambda at: sign * samples.value[at])
    leader = samples.take([best])
    return best, difference(leader, samples) if samples.higher else difference(samples, leader)


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
    for width, same in groupby(map(metric.spread, observed), key=lambda features: features.shape[1]):
        while some := list(islice(same, max(1, _COLUMNS // width))):
            yield np.concatenate(some, axis=1), len(some)


def _over(a: Array, b: Array) -> Array:
    """a / b, NaN where one that it must be above 0 to compare with is not."""
    a, b = np.broadcast_arrays(a, b)
    found: Array = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return found
