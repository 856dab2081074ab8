"""What points are judged by: merges of them, run on the rows that choose, and what is made as great as it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loramerge.errors import BadOption, LoramergeError
from loramerge.evaluation import metrics
from loramerge.search.loop import Seen
from loramerge.search.objective import LORAHUB_L1, Measure, Objective, lorahub
from loramerge.search.points import named, recipe_for

if TYPE_CHECKING:
    from loramerge.api.candidates import Entry, Maker
    from loramerge.api.suite import OnTask, Suite
    from loramerge.evaluation.metrics import Array
    from loramerge.recipe import Recipe
    from loramerge.search.space import Point
    from loramerge.search.tune import Search


@dataclass
class Ground:
    """Everything a point is judged by: makes the merges and runs them. `merging` holds for all, their method too."""

    maker: Maker
    chosen: Suite
    refs: Sequence[str]
    search: Search
    merging: Mapping[str, Any]

    def recipe(self, point: Point) -> Recipe:
        """The merge that a point stands for."""
        return recipe_for(self.maker.session, self.refs, point, self.search.rank, self.merging)

    def entry(self, point: Point) -> Entry:
        """The candidate of a point. Raises what merging raises."""
        return self.maker.merge(self.recipe(point), named(point))

    def observe(self, points: Sequence[Point], rows: range) -> Seen:
        """What was observed of some points on some rows, NaN for one that cannot be merged, with the reason."""
        entries: dict[int, Entry] = {}
        why = {}
        for at, point in enumerate(points):
            try:
                entries[at] = self.entry(point)
            except LoramergeError as error:
                why[at] = error.message
        found = {}
        for task in self.chosen.tasks:
            there = range(rows.start, min(rows.stop, len(task.items)))
            found[task.name], lost = self._on_task(task, entries, len(points), there)
            why = {**lost, **why}
        return Seen(found, why)

    def _on_task(
        self, task: OnTask, entries: Mapping[int, Entry], count: int, rows: range
    ) -> tuple[Array, dict[int, str]]:
        """(points, rows, R) with what was observed of those merged, and of which of them the model made no number."""
        if not rows:
            return np.zeros((count, 0, 1)), {}
        if not entries:
            return np.full((count, len(rows), self._width(task)), np.nan), {}
        seen = self.chosen.observe(task, [entry.candidate for entry in entries.values()], rows=rows)
        full = np.full((count, len(rows), seen.observed.shape[2]), np.nan)
        full[list(entries)] = seen.observed
        lost = [at for at in entries if np.isnan(full[at]).any()]
        return full, {at: f"{task.name}: {note}" for at, note in zip(lost, seen.notes, strict=True)}

    def _width(self, task: OnTask) -> int:
        """How many numbers the task observes of an item."""
        seen = self.chosen.observe(task, [self.maker.sources[0].plain], rows=range(1))
        return int(seen.observed.shape[2])


def objective_of(ground: Ground) -> Objective:
    """What is made as great as it can be. Raises BadOption where a task has no owner, or no loss."""
    tasks = ground.chosen.tasks
    if ground.search.objective == "lorahub":
        if lacking := [task.name for task in tasks if task.prepared.loss is None]:
            raise BadOption(f"{lacking[0]} has no loss.", hint="--objective share")
        made = lorahub([task.name for task in tasks], l1=LORAHUB_L1)
        losses = {task.name: task.prepared.loss for task in tasks}
        return replace(made, tasks={n: replace(m, prepare=losses[n]) for n, m in made.tasks.items()})
    own = _own(ground) if ground.search.objective == "share" else {}
    return Objective({task.name: Measure(task.prepared.metrics[0], own.get(task.name)) for task in tasks})


def _own(ground: Ground) -> dict[str, float]:
    """What the source of each task scores on all rows that choose."""
    found = {}
    for task in ground.chosen.tasks:
        if task.owner not in ground.maker.names:
            raise BadOption(
                f"Whose task is {task.name}?",
                hint=f"--own {task.name}=REF, or --objective score, which compares with none",
            )
        source = ground.maker.sources[ground.maker.names.index(task.owner)]
        seen = ground.chosen.observe(task, [source])
        found[task.name] = own = float(metrics.score(seen.observed, task.prepared.metrics[0])[0])
        if not own > 0:
            raise LoramergeError(
                f"{task.owner} scores {own:.3g} on {task.name}, which has no shares.",
                where="; ".join(seen.notes),
                hint="--objective score",
            )
    return found
