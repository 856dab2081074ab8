"""From observations to a table of scores: each with an interval, beside the sources' own, and means over tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loramerge.evaluation import metrics

if TYPE_CHECKING:
    from loramerge.api.suite import OnTask
    from loramerge.evaluation.metrics import Array, Metric, Samples

_DRAWS = 1000


def scores(
    task: OnTask, names: Sequence[str], observed: Array, seed: int = 0
) -> tuple[list[dict[str, Any]], Samples | None]:
    """A row for each candidate, and the draws of what share of the owner's score each has (None without the owner)."""
    first, *others = (_samples(metric, task.name, observed, seed) for metric in task.prepared.metrics)
    values, more = _told(first), [_told(samples) for samples in others]
    own = metrics.ratio(first, first.take([names.index(task.owner)])) if task.owner in names else None
    shares = [one["value"] for one in _told(own)] if own else [None] * len(names)
    rows = [
        {
            "candidate": name,
            "task": task.name,
            "metric": task.prepared.metrics[0].name,
            **values[at],
            "rows": len(task.items),
            "own": values[names.index(task.owner)]["value"] if task.owner in names else None,
            "normalised": shares[at],
            "more": {metric.name: told[at] for metric, told in zip(task.prepared.metrics[1:], more, strict=True)},
        }
        for at, name in enumerate(names)
    ]
    return rows, own


def means(names: Sequence[str], tasks: Mapping[str, Samples]) -> list[dict[str, Any]]:
    """For each candidate the mean share of the owners' scores over some tasks, with its interval."""
    if not tasks:
        return []
    found = _told(metrics.average(list(tasks.values())))
    return [{"candidate": name, **row, "tasks": len(tasks)} for name, row in zip(names, found, strict=True)]


def _samples(metric: Metric, task: str, observed: Array, seed: int) -> Samples:
    return metrics.bootstrap(observed, metric, draws=_DRAWS, seed=seed, stream=task)


def _told(samples: Samples) -> list[dict[str, float | None]]:
    low, high = metrics.interval(samples)
    rows = zip(samples.value.tolist(), low.tolist(), high.tolist(), strict=True)
    return [{"value": _number(v), "low": _number(a), "high": _number(b)} for v, a, b in rows]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
