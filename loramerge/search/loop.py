"""The search itself: ask for a batch, race it together with the best so far, tell what came of it, go on.

The best so far runs in every race at no cost, since it has been observed on all rows. A point is raced once: where it
is asked for again, the sampler is told what is known of it. Nothing here draws or measures time, so the same search
gone through again with its journal comes to the same result, and evaluates only what the journal lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loramerge.errors import BadOption
from loramerge.evaluation.metrics import Array
from loramerge.evaluation.racing import Rules, Standing, race
from loramerge.evaluation.resampling import Samples
from loramerge.search.journal import Journal, Noted, key
from loramerge.search.objective import Objective
from loramerge.search.samplers._sampler import Search
from loramerge.search.space import Point

_IDLE = 20
"""Batches without a new point after which a sampler has no more to ask for."""


@dataclass(frozen=True)
class Seen:
    """For each task (points, rows, R), with fewer rows where it has no more; why points have no score, by place."""

    observed: Mapping[str, Array]
    why: Mapping[int, str] = field(default_factory=dict)


class Evaluate(Protocol):
    """Observes some points on some rows.

    What it observes of a point depends on neither the other points nor on what was asked before. Rows 0, 1, … are the
    items in an order that says nothing of them (drawn once, not sorted by class): the first few stand for all.
    """

    def __call__(self, points: Sequence[Point], rows: range) -> Seen:
        """The observations, the points in the order given; NaN for one that cannot be scored."""


@dataclass(frozen=True)
class Plan:
    """How much is searched: rows of each task, passes of one candidate over all of them, points asked for at once."""

    rows: int
    budget: float
    batch: int = 16
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        for name, example in (("rows", "--limit"), ("batch", "--batch 16"), ("budget", "--budget 20")):
            if not 1 <= getattr(self, name) < math.inf:
                raise BadOption(f"{name} is {getattr(self, name)}, which is no number from 1 up.", hint=example)

    @property
    def most(self) -> float:
        """Passes that a point costs in a race: the rules' most, or its first rung, which is a row at least."""
        return max(self.rules.most, math.ceil(self.rules.rungs[0] * self.rows) / self.rows)

    @property
    def identity(self) -> dict[str, str]:
        """What a journal must be of, apart from who is searched; a greater budget may go on with it."""
        rules = self.rules
        told = f"rungs {rules.rungs}, keep {rules.keep}, level {rules.level}, most {rules.most}"
        return {"rows": str(self.rows), "batch": str(self.batch), "race": told}


@dataclass(frozen=True)
class Trial:
    """What came of one point: how it stood after each rung of its race, the last being all that is known of it.

    `why` it could not be scored, where it could not.
    """

    number: int
    point: Point
    rungs: tuple[Standing, ...]
    why: str = ""

    @property
    def last(self) -> Standing:
        """Where it stopped, or stood at the end."""
        return self.rungs[-1]


@dataclass(frozen=True)
class Found:
    """The best point, all trials in order, and the passes that were spent (as if nothing had been in the journal)."""

    winner: Trial | None = None
    trials: tuple[Trial, ...] = ()
    spent: float = 0.0


def run(
    search: Search,
    evaluate: Evaluate,
    objective: Objective,
    plan: Plan,
    journal: Journal,
    progress: Callable[[Found], None] = lambda found: None,
) -> Found:
    """Search until the passes are spent or there are no new points; `progress` is told after each batch.

    The last batch is as small as what is left of the budget; since one candidate always runs to the end, it may go
    over by less than a pass.
    """
    found, known, idle = Found(), dict[str, float](), 0
    while idle < _IDLE and (points := search.ask(_room(plan, found))):
        fresh = {key(point): point for point in points if key(point) not in known}
        if fresh:
            found = _raced(list(fresh.values()), found, _Scores(evaluate, objective, journal), plan)
            trials = found.trials[-len(fresh) :]
            known |= {key(trial.point): trial.last.value for trial in trials}
            journal.note(_noted(trial, plan.rows) for trial in trials)
            progress(found)
        idle = 0 if fresh else idle + 1
        search.tell(points, [known[key(point)] for point in points])
    return found


def _room(plan: Plan, found: Found) -> int:
    """How many points the next batch may have: as many as there are passes left to race them."""
    return max(0, min(plan.batch, math.floor((plan.budget - found.spent) / plan.most)))


def _noted(trial: Trial, rows: int) -> Noted:
    last = trial.last
    state = "finished" if last.rows == rows else "dropped"
    return Noted(trial.number, trial.point, state, last.rows, last.value, last.low, last.high)


def _raced(fresh: Sequence[Point], found: Found, scores: _Scores, plan: Plan) -> Found:
    """After one more batch, of points that are new."""
    best = [found.winner] if found.winner else []
    points = [*(trial.point for trial in best), *fresh]

    def score(some: Sequence[int], rows: int) -> Samples:
        return scores([points[i] for i in some], rows)

    result = race(len(points), plan.rows, plan.rules, score, known=range(len(best)))
    stood: list[list[Standing]] = [[] for _ in points]
    for one in (one for rung in result.rungs for one in rung.standing):
        stood[one.candidate].append(one)
    first = len(found.trials) - len(best)
    new = range(len(best), len(points))
    raced = [Trial(first + i, points[i], tuple(stood[i]), scores.journal.why(points[i])) for i in new]
    winner = [*best, *raced][result.winner]
    return Found(winner, (*found.trials, *raced), found.spent + result.cost * len(fresh))


class _Scores:
    """Scores of points during one race, on more rows at each call; only what the journal lacks is evaluated."""

    def __init__(self, evaluate: Evaluate, objective: Objective, journal: Journal) -> None:
        self._evaluate = evaluate
        self._objective = objective
        self.journal = journal
        self._seen = 0

    def __call__(self, points: Sequence[Point], rows: int) -> Samples:
        new = range(self._seen, rows)
        if missing := self.journal.missing(points, new):
            seen = self._evaluate(missing, new)
            self.journal.add(missing, new, seen.observed, seen.why)
        self._seen = rows
        return self._objective.score(points, self.journal.observed(points, rows))
