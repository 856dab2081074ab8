"""What a search makes as great as it can: a mean over tasks, each beside the source that was trained for it.

    normalised      mean over tasks of score / the source's own score (own / score where less is better)
    LoraHub         - mean over tasks of the loss - 0.05 · mean |w|, over all weights w

LoraHub: Huang et al. 2024, https://arxiv.org/abs/2307.13269; the published code divides the loss by the number of
examples once more, which changes nothing where there is one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loramerge.evaluation.metrics import Array, Metric, mean
from loramerge.evaluation.resampling import Samples, average, bootstrap, ratio
from loramerge.search.space import WEIGHT, Point

LORAHUB_L1 = 0.05
"""By how much the mean size of the weights counts against a merge."""


@dataclass(frozen=True)
class Measure:
    """How one task's observations become a score: its metric, and what the source itself gets on all the rows.

    `prepare` makes of them what the metric takes.
    """

    metric: Metric
    own: float | None = None
    prepare: Callable[[Array], Array] | None = None

    def samples(self, observed: Array, task: str, draws: int, seed: int) -> Samples:
        """More is better: over the source's own where that is known, the negative of what is better if less else."""
        observed = self.prepare(observed) if self.prepare else observed
        found = bootstrap(observed, self.metric, draws=draws, seed=seed, stream=task)
        if self.own is not None:
            fixed = Samples(np.array([self.own]), np.full((1, draws), self.own), found.items)
            return ratio(found, fixed)
        return found if found.higher else _negative(found)


@dataclass(frozen=True)
class Objective:
    """The mean over tasks, less `l1` times the mean size of a point's weights."""

    tasks: Mapping[str, Measure]
    l1: float = 0.0
    draws: int = 1000
    seed: int = 0

    def score(self, points: Sequence[Point], observed: Mapping[str, Array]) -> Samples:
        """Of each point, from what was observed of it in each task: (points, rows, R)."""
        parts = [task.samples(observed[name], name, self.draws, self.seed) for name, task in self.tasks.items()]
        found = average(parts)
        penalty = self.l1 * np.array([_size(point) for point in points])
        return replace(found, value=found.value - penalty, draws=found.draws - penalty[:, None])


def lorahub(tasks: Sequence[str], *, l1: float = LORAHUB_L1) -> Objective:
    """LoraHub's objective on `scored` losses (negative log-likelihoods and their tokens, or 1 for each example)."""
    loss = mean("loss", higher=False, bounds=(0.0, np.inf))
    return Objective({name: Measure(loss) for name in tasks}, l1)


def _negative(samples: Samples) -> Samples:
    least, most = samples.bounds
    return replace(samples, value=-samples.value, draws=-samples.draws, higher=True, bounds=(-most, -least))


def _size(point: Point) -> float:
    """The mean |w| of a point's weights, 0 where it has none."""
    weights = [abs(float(value)) for name, value in point.items() if name.startswith(WEIGHT)]
    return float(np.mean(weights)) if weights else 0.0
