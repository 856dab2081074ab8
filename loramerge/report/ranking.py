"""The order of an evaluation's candidates, and who is best where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from loramerge.api.candidates import contenders
from loramerge.report.inputs import Candidate, Evaluation, Mean, Score, Task


@dataclass(frozen=True)
class Ranking:
    """An evaluation, looked up."""

    found: Evaluation

    @cached_property
    def _scores(self) -> dict[tuple[str, str], Score]:
        return {(score.candidate, score.task): score for score in self.found.scores}

    @cached_property
    def _means(self) -> dict[str, Mean]:
        return {mean.candidate: mean for mean in self.found.means}

    def score(self, candidate: str, task: str) -> Score | None:
        """A candidate's number on a task."""
        return self._scores.get((candidate, task))

    def mean(self, candidate: str) -> Mean | None:
        """A candidate's mean over all tasks."""
        return self._means.get(candidate)

    @cached_property
    def order(self) -> list[Candidate]:
        """The candidates, the best mean first; those without one last, as they are listed."""
        return sorted(self.found.candidates, key=lambda one: -_known(self.mean(one.name)))

    @cached_property
    def contenders(self) -> set[str]:
        """Who can be the best: what was merged; everybody where nothing was."""
        every = self.found.candidates
        return {every[at].name for at in contenders([one.kind for one in every])}

    def best_on(self, task: Task) -> set[str]:
        """The contenders with the best number on a task."""
        sign = 1 if task.higher else -1
        values = {
            score.candidate: sign * score.value
            for score in self.found.scores
            if score.task == task.name and score.candidate in self.contenders and math.isfinite(score.value)
        }
        return {name for name, value in values.items() if value == max(values.values())}

    def best_of(self, means: Sequence[Mean]) -> set[str]:
        """The contenders with the best mean."""
        values = {
            one.candidate: one.value for one in means if one.candidate in self.contenders and one.value == one.value
        }
        return {name for name, value in values.items() if value == max(values.values())}

    def ranked(self, means: Sequence[Mean]) -> list[Mean]:
        """The contenders' means that are known, the best first."""
        known = [one for one in means if one.candidate in self.contenders and math.isfinite(one.value)]
        return sorted(known, key=lambda one: -one.value)

    def even(self, one: Score | Mean) -> bool:
        """Whether a contender is not proven worse than the best, where that was compared."""
        return one.candidate in self.contenders and one.behind is not None and (one.behind.low or 0.0) <= 0

    def kind_of(self, candidate: Candidate) -> int:
        """The colour of a candidate: merges, sources, the base."""
        return {"base": 8, "adapter": 2}.get(candidate.kind, 1)


def _known(mean: Mean | None) -> float:
    return mean.value if mean and math.isfinite(mean.value) else -math.inf
