"""lm-evaluation-harness's metrics as sums over documents, where that is what they are.

It has a value for each document (a number, or the two or more things that a score of all documents is made of) and a
function of all values. Those that are functions of sums, by the name that it has for the function:

    mean, nanmean          Σ value / documents; the latter over those with a value
    perplexity             exp(-Σ log p / documents)
    weighted_perplexity    exp(-Σ log p / Σ weight), weights being words or bytes
    bits_per_byte          -Σ log₂ p / Σ bytes
    brier_score            Σ |p - 1 at the right one|² / documents
    f1, matthews_corrcoef  as ours, of (true, predicted)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from loramerge.errors import BadOption, FormatError, IncompatibleError
from loramerge.evaluation.metrics import Array, Metric, f1, mcc, mean, perplexity

Key = tuple[str, str]
"""A metric's name and that of the filter that an answer went through before."""

Pair = tuple[float, float]


def _number(value: Any) -> Pair:
    return float(value), 1.0


def _number_or_none(value: Any) -> Pair:
    return (0.0, 0.0) if math.isnan(value) else _number(value)


def _loss(value: Any) -> Pair:
    return -float(value), 1.0


def _weighted_loss(value: Any) -> Pair:
    return -float(value[0]), float(value[1])


def _bits(value: Any) -> Pair:
    return -float(value[0]) / math.log(2), float(value[1])


def _brier(value: Any) -> Pair:
    right, chances = int(value[0]), np.array(value[1], np.float64)
    chances[right] -= 1
    return float(chances @ chances), 1.0


def _classes(value: Any) -> Pair:
    true, predicted = value
    return float(predicted), float(true)


def _mean(name: str, classes: int) -> Metric:
    least, most = (0.0, 1.0) if name.startswith(("acc", "exact_match")) else (-math.inf, math.inf)
    return mean(name, bounds=(least, most))


SUMS: Mapping[str, tuple[Callable[[Any], Pair], Callable[[str, int], Metric | None]]] = {
    "mean": (_number, _mean),
    "nanmean": (_number_or_none, _mean),
    "perplexity": (_loss, lambda name, classes: perplexity()),
    "weighted_perplexity": (_weighted_loss, lambda name, classes: perplexity()),
    "bits_per_byte": (_bits, lambda name, classes: mean(name, bounds=(0.0, math.inf))),
    "brier_score": (_brier, lambda name, classes: mean(name, bounds=(0.0, 2.0))),
    "f1": (_classes, lambda name, classes: f1() if classes == 2 else None),
    "matthews_corrcoef": (_classes, lambda name, classes: mcc(classes) if classes else None),
}
"""For each function: the two numbers of a document, and the metric of their sums (None where it cannot be)."""


@dataclass(frozen=True)
class Columns:
    """Which metrics there are, and the two columns of an observation that each has."""

    pairs: Mapping[Key, Callable[[Any], Pair]]
    metrics: Sequence[Metric]
    left_out: Sequence[str]

    def row(self, values: Mapping[Key, Any], where: str) -> list[float]:
        """What is observed of a document; a metric that has no value for it gets no weight."""
        try:
            return [x for key, pair in self.pairs.items() for x in (pair(values[key]) if key in values else (0.0, 0.0))]
        except (TypeError, ValueError, IndexError) as error:
            raise FormatError(f"The task's own metric gives what is no number: {error}.", where=where) from None


def columns(
    values: Sequence[Mapping[Key, Any]], functions: Mapping[str, str], higher: Mapping[str, bool], classes: int
) -> Columns:
    """The metrics that documents with such values have; `functions` of all values, by the metric's name.

    Raises IncompatibleError where none of them is a sum.
    """
    examples = {key: value for one in values for key, value in one.items()}
    pairs: dict[Key, Callable[[Any], Pair]] = {}
    metrics: list[Metric] = []
    left_out: list[str] = []
    for key, example in examples.items():
        pair, metric = _sum(key, example, functions.get(key[0], "mean"), classes)
        if metric is None:
            left_out.append(shown(key))
            continue
        spread = partial(_two, at=2 * len(pairs), then=metric.spread)
        metrics.append(replace(metric, name=shown(key), higher=higher.get(key[0], metric.higher), spread=spread))
        pairs[key] = pair
    if not pairs:
        raise IncompatibleError(
            f"None of the task's metrics is made of sums over documents: {', '.join(left_out)}.",
            hint=f"a task with a metric that is a {', '.join(SUMS)}",
        )
    return Columns(pairs, metrics, left_out)


def shown(key: Key) -> str:
    """A metric's name as it is told, as the harness has it but for the filter that does nothing."""
    return key[0] if key[1] == "none" else ",".join(key)


def first(metrics: Sequence[Metric], name: str | None) -> list[Metric]:
    """The metrics, that of this name first. Raises BadOption where there is none."""
    known = [metric.name for metric in metrics]
    if name is not None and name not in known:
        raise BadOption(f"The task has no metric {name!r}.", hint=", ".join(known))
    return sorted(metrics, key=lambda metric: metric.name != name)


def _sum(key: Key, example: Any, function: str, classes: int) -> tuple[Callable[[Any], Pair], Metric | None]:
    pair, make = SUMS.get(function, (_number, lambda name, classes: None))
    try:
        pair(example)
    except (TypeError, ValueError, IndexError):
        return pair, None
    return pair, make(key[0], classes)


def _two(observed: Array, at: int, then: Callable[[Array], Array]) -> Array:
    return then(observed[:, at : at + 2])
