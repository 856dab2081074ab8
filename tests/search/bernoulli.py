"""A problem with a known answer, evaluated for real: rows are right with a chance that depends on the point.

Whether a row is right depends on the point and the row alone. As a script it searches with a journal, and ends
itself in the middle of an evaluation where it is told to.

    python bernoulli.py JOURNAL SAMPLER EVALUATIONS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from loramerge.evaluation.metrics import mean, scored
from loramerge.search.journal import Journal
from loramerge.search.loop import Found, Plan, Seen, run
from loramerge.search.objective import Measure, Objective
from loramerge.search.samplers._sampler import SAMPLERS
from loramerge.search.space import read

SPACE = read(["scale=0..1", "weight.a=-1..1"], {})
TASKS = {"one": 1.0, "two": 0.8}
PLAN = Plan(rows=160, budget=20, batch=16)
OBJECTIVE = Objective({name: Measure(mean("acc"), own=own) for name, own in TASKS.items()}, draws=200)


def chance(point) -> float:
    """At most 0.9, at scale 0.7 and weight 0.4."""
    return 0.9 - (point["scale"] - 0.7) ** 2 - (point["weight.a"] - 0.4) ** 2 / 4


class Evaluator:
    """Counts what it evaluates; ends the process at once after so many calls."""

    def __init__(self, calls: int | None = None) -> None:
        self.left = calls
        self.rows = 0

    def __call__(self, points, rows):
        if self.left is not None:
            if self.left == 0:
                os._exit(9)
            self.left -= 1
        self.rows += len(points) * len(rows)
        return Seen({task: scored([self._row(point, task, rows) for point in points]) for task in TASKS})

    def _row(self, point, task, rows):
        # The same row is as hard for every point.
        hard = np.random.default_rng(list(TASKS).index(task)).random(PLAN.rows)[rows.start : rows.stop]
        return hard < chance(point) * TASKS[task]


def searched(journal: Path | None, sampler: str, evaluate: Evaluator, plan: Plan = PLAN) -> Found:
    """One search, from its beginning or from where its journal stands."""
    with Journal(journal, {"sampler": sampler, **plan.identity}) as opened:
        return run(SAMPLERS[sampler].start(SPACE, 0), evaluate, OBJECTIVE, plan, opened)


if __name__ == "__main__":
    searched(Path(sys.argv[1]), sys.argv[2], Evaluator(int(sys.argv[3])))
