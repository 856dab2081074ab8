"""From observations to a table of scores: each with an interval, beside the sources' own, and means over tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loramerge.evaluation import resampling

if TYPE_CHECKING:
    from loramerge.api.suite import OnTask
    from loramerge.evaluation.metrics import Array, Metric
    from loramerge.evaluation.resampling import Samples

_DRAWS = 1000


def scores(
    task: OnTask, names: Sequence[str], observed: Array, owners: Sequence[int], contenders: Sequence[int], seed: int = 0
) -> tuple[list[dict[str, Any]], Samples | None]:
    """A row for each candidate, and the draws of what share of the owner's score each has (None without the owner).

    `owners`: the places of the source that was trained for the task, and of what equals it. `behind` in a row is how
    much worse it is than the best of the contenders, on the same draws.
    """
    first, *others = (_samples(metric, task.name, observed, seed) for metric in task.prepared.metrics)
    values, more = _told(first), [_told(samples) for samples in others]
    gaps = _gaps(first, contenders)
    own, shares = _shares(first, owners)
    rows = [
        {
            "candidate": name,
            "task": task.name,
            "metric": task.prepared.metrics[0].name,
            **values[at],
            "rows": len(task.items),
            "own": values[owners[0]]["value"] if owners else None,
            "normalised": share.get("value"),
            "normalised_low": share.get("low"),
            "normalised_high": share.get("high"),
            "behind": gaps[at],
            "more": {metric.name: told[at] for metric, told in zip(task.prepared.metrics[1:], more, strict=True)},
        }
        for at, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
    return rows, own


def _shares(samples: Samples, owners: Sequence[int]) -> tuple[Samples | None, Sequence[Mapping[str, float | None]]]:
    """What share of the owner's score each candidate has: the draws, and rows that are empty without an owner."""
    if not owners:
        return None, [{}] * len(samples.value)
    found = resampling.ratio(samples, samples.take(owners[:1]))
    return found, _told(found, owners)


def means(
    names: Sequence[str], tasks: Sequence[tuple[Sequence[int], Samples]], contenders: Sequence[int]
) -> list[dict[str, Any]]:
    """For each candidate the mean share of the owners' scores over some tasks, and how far it is behind the best.

    `tasks`: the places of the owner and of its equals, and the shares of what it scores.
    """
    if not tasks:
        return []
    every = resampling.average([share for _, share in tasks])
    sure = set.intersection(*(set(owners) for owners, _ in tasks))
    rows = zip(names, _told(every, sure), _gaps(every, contenders), strict=True)
    return [{"candidate": name, **row, "tasks": len(tasks), "behind": gap} for name, row, gap in rows]


def _samples(metric: Metric, task: str, observed: Array, seed: int) -> Samples:
    return resampling.bootstrap(observed, metric, draws=_DRAWS, seed=seed, stream=task)


def _gaps(samples: Samples, contenders: Sequence[int]) -> list[dict[str, float | None] | None]:
    """How far each candidate is behind the best contender; None for that one, and where there is no number."""
    found = resampling.behind(samples, contenders)
    if found is None:
        return [None] * len(samples.value)
    best, gap = found
    return [None if at == best or row["value"] is None else row for at, row in enumerate(_told(gap))]


def _told(samples: Samples, sure: Collection[int] = ()) -> list[dict[str, float | None]]:
    """Values with their intervals, which for those that are `sure` (a source's share of itself) have no width."""
    low, high = resampling.interval(samples)
    for at in sure:
        low[at] = high[at] = samples.value[at]
    rows = zip(samples.value.tolist(), low.tolist(), high.tolist(), strict=True)
    return [{"value": _number(v), "low": _number(a), "high": _number(b)} for v, a, b in rows]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
