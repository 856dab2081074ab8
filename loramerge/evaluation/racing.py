"""Racing: candidates run on more and more rows, and those that fall behind stop.

After each rung the better `keep` of the candidates goes on (successive halving), and with them all that are not
yet proven worse: whose paired difference to the leader, on the same draws of the same rows, does not have its
interval above zero. The level of that interval is shared out over the comparisons of a rung (Bonferroni). A cap on
the whole cost bounds how many undecided ones may go on: no more than can be raced to the end by plain halving.

Cost is counted in rows · candidates, 1 being all candidates on all rows. Jamieson and Talwalkar 2016,
https://arxiv.org/abs/1502.07943 (halving); Maron and Moore 1994 (stopping what is proven worse).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from loramerge.errors import BadOption
from loramerge.evaluation.resampling import Samples, difference, interval

Score = Callable[[Sequence[int], int], Samples]
"""Of some candidates, on the first so many rows; every call draws equal numbers of rows alike."""


@dataclass(frozen=True)
class Rules:
    """How a race goes.

    `rungs`: shares of the rows after which candidates are dropped, rising to 1. `keep`: the share that goes on in
    any case. `level`: how sure it must be that a candidate is worse than the leader before more are dropped.
    `most`: the cost that is kept to, but for the first rung and for one candidate, which always runs to the end.
    """

    rungs: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    keep: float = 0.5
    level: float = 0.95
    most: float = 0.25

    def __post_init__(self) -> None:
        rising = [0.0, *self.rungs]
        if not self.rungs or self.rungs[-1] != 1 or any(a >= b for a, b in itertools.pairwise(rising)):
            raise BadOption(f"Rungs are {self.rungs}, which do not rise from above 0 to 1.", hint="0.25,0.5,1")
        for name in ("keep", "level", "most"):
            if not 0 < getattr(self, name) <= 1:
                raise BadOption(f"{name} is {getattr(self, name)}, outside (0, 1].")


@dataclass(frozen=True)
class Standing:
    """After so many rows: a candidate's score, how far behind the best it is (≥ 0), and the interval of each."""

    candidate: int
    rows: int
    value: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float

    @property
    def behind(self) -> bool:
        """Whether it is proven worse than the best, or no number at all."""
        return not self.gap_low <= 0


@dataclass(frozen=True)
class Rung:
    """After so many rows: all that ran, best first, and who of them goes on."""

    rows: int
    standing: tuple[Standing, ...]
    kept: tuple[int, ...]

    @property
    def dropped(self) -> tuple[Standing, ...]:
        """Who stopped here."""
        return tuple(one for one in self.standing if one.candidate not in self.kept)


@dataclass(frozen=True)
class Result:
    """The winner with its score and interval on all rows, the rungs, and the cost (1: all on all rows)."""

    winner: int
    value: float
    low: float
    high: float
    rungs: tuple[Rung, ...]
    cost: float


def race(count: int, rows: int, rules: Rules, score: Score, *, known: Collection[int] = ()) -> Result:
    """Race candidates 0 … count - 1 over `rows` rows. Those `known` have been run on all rows and cost nothing.

    A candidate whose score is not a number is behind every other.
    """
    running: Sequence[int] = range(count)
    paying = count - len(known)
    steps = sorted({max(1, math.ceil(share * rows)) for share in rules.rungs})
    spent, seen, rungs = 0.0, 0, list[Rung]()
    for at, step in enumerate(steps):
        spent += len(set(running) - set(known)) * (step - seen) / rows
        seen = step
        samples = score(running, step)
        after = _later(steps[at:], rules.keep) / rows
        room = max(1, math.floor((rules.most * paying - spent) / after + 1e-9)) if after else count
        standing = _standing(running, step, samples, rules.level)
        kept = _kept(standing, 1.0 if step == rows else rules.keep, room, known)
        rungs.append(Rung(step, tuple(standing), kept))
        running = kept
    best = rungs[-1].standing[0]
    return Result(best.candidate, best.value, best.low, best.high, tuple(rungs), spent / max(1, paying))


def _standing(running: Sequence[int], rows: int, samples: Samples, level: float) -> list[Standing]:
    """All that run, best first, each compared with the best."""
    sign = 1.0 if samples.higher else -1.0
    order = np.argsort(-sign * samples.value, kind="stable").tolist()  # NaN comes last
    best = samples.take(order[:1])
    gaps = difference(best, samples) if samples.higher else difference(samples, best)
    shared = 1 - 2 * (1 - level) / max(1, len(running) - 1)
    columns = (samples.value, *interval(samples), gaps.value, *interval(gaps, shared))
    return [Standing(running[i], rows, *(float(column[i]) for column in columns)) for i in order]


def _kept(standing: Sequence[Standing], keep: float, room: int, known: Collection[int]) -> tuple[int, ...]:
    """Who goes on, best first: the better `keep`, and the undecided; of those that cost, as many as there is room."""
    sure = max(1, math.ceil(keep * sum(math.isfinite(one.value) for one in standing)))
    kept: list[int] = []
    for place, one in enumerate(standing):
        free = one.candidate in known
        if (place < sure or not one.behind) and (free or room > 0):
            kept.append(one.candidate)
            room -= not free
    return tuple(kept)


def _later(steps: Sequence[int], keep: float) -> float:
    """Rows that one candidate, and its share of those that halving leaves, are still to run."""
    return sum(keep**at * (after - before) for at, (before, after) in enumerate(itertools.pairwise(steps)))
