"""`tune`: the best merge of some adapters by validation rows, and its score on rows it was not chosen by.

Points of the space become merges that are never written; all of a batch run through the base model together. Where a
task has a split for it (dev, validation), that chooses; where it has none, the even rows of the split that is reported
choose and the odd ones are reported. No row is in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loramerge import recipe
from loramerge.api import evaluating
from loramerge.api.candidates import Entry, Maker, heads_of
from loramerge.api.suite import Asked, OnTask, Suite, again, suite
from loramerge.errors import BadOption, LoramergeError, UsageError
from loramerge.evaluation import _files, metrics
from loramerge.search.journal import Journal
from loramerge.search.loop import Found, Plan, Trial, run
from loramerge.search.objective import LORAHUB_L1, Measure, Objective, lorahub
from loramerge.search.points import named, recipe_for, space_of
from loramerge.search.samplers._sampler import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loramerge.api.session import Session
    from loramerge.evaluation.metrics import Array
    from loramerge.search.space import Point, Space

SCHEMA = 1
_VALIDATION = ("dev", "validation", "valid", "val")
_KEPT = 32
"""Merges that are held at once."""


@dataclass(frozen=True)
class Search:
    """What is searched and how. `space`: `NAME=DOMAIN` texts (none: all methods that need no data, and the scale).

    `budget` in passes of one candidate over all validation rows. `objective`: "share" of the sources' own scores,
    "score" itself, or "lorahub". `rank` of all merges, and the k of those that decide theirs.
    """

    space: Sequence[str] = ()
    sampler: str = "tpe"
    budget: float = 20.0
    batch: int = 16
    objective: str = "share"
    rank: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """What came of it: `data` is what is written as JSON; the winner's recipe is in the file `recipe`."""

    data: Mapping[str, Any]
    path: Path
    recipe: Path


@dataclass
class Ground:
    """Everything a point is judged by: makes the merges, runs them, knows what failed and why."""

    maker: Maker
    chosen: Suite
    refs: Sequence[str]
    search: Search
    merging: Mapping[str, Any]
    why: dict[str, str] = field(default_factory=dict)

    def recipe(self, point: Point) -> recipe.Recipe:
        """The merge that a point stands for."""
        return recipe_for(self.maker.session, self.refs, point, self.search.rank, self.merging)

    def entry(self, point: Point) -> Entry | None:
        """The candidate of a point; None where it cannot be merged, `why` says the reason then."""
        name = named(point)
        try:
            return self.maker.merge(self.recipe(point), name)
        except LoramergeError as error:
            self.why[name] = error.message
            return None

    def observe(self, points: Sequence[Point], rows: range) -> dict[str, Array]:
        """For each task what was observed of some points on some rows, NaN for one that cannot be merged."""
        entries = [self.entry(point) for point in points]
        found = {}
        for task in self.chosen.tasks:
            there = range(rows.start, min(rows.stop, len(task.items)))
            found[task.name] = self._on_task(task, entries, there)
        return found

    def _on_task(self, task: OnTask, entries: Sequence[Entry | None], rows: range) -> Array:
        made = [entry.candidate for entry in entries if entry]
        if not rows:
            return np.zeros((len(entries), 0, 1))
        observed = self.chosen.observe(task, made, rows=rows).observed if made else np.zeros((0, len(rows), 3))
        full = np.full((len(entries), len(rows), observed.shape[2]), np.nan)
        full[[at for at, entry in enumerate(entries) if entry]] = observed
        return full


def tune(
    session: Session,
    refs: Sequence[str],
    asked: Asked,
    search: Search,
    *,
    out: Path,
    force: bool = False,
    allow_pickle: bool = False,
    **merging: Any,
) -> Tuned:
    """Search; write `out`.json (all trials, the held-out score) and `out`.yaml (the winner's recipe).

    The journal `out`.journal makes the same call go on after an interruption; it is left, so that a larger budget can
    go on too. Raises OutputExists before any work, BadOption for a space that no method has, and what `evaluate` does.
    """
    target = evaluating.target_of(session, out.with_suffix(".json"), force)
    assert target is not None
    opened, maker = evaluating.sources(session, refs, asked, allow_pickle)
    if not opened:
        raise UsageError("There is nothing to tune.", hint="name two adapters or more")
    maker.most = _KEPT
    heads = heads_of(opened)
    first = suite(session, asked, opened[0].adapter, heads)
    takes, notes = split_rows(first)
    chosen = again(first, replace(asked, takes=takes), heads).shuffled(search.seed)
    merging = {**evaluating.base_weights(session, asked, opened), **merging}
    ground = Ground(maker, chosen, refs, search, merging)
    searched = space_of(search.space, maker, data=bool(merging.get("data")))
    plan = Plan(max(len(task.items) for task in chosen.tasks), search.budget, search.batch)
    with _open_journal(target.with_suffix(".journal"), force, _identity(ground, searched, plan)) as journal:
        objective = objective_of(ground)
        found = run(
            SAMPLERS[search.sampler].start(searched, search.seed),
            ground.observe,
            objective,
            plan,
            journal,
            _telling(session, plan),
        )
    if found.winner is None or found.winner.last.rows < plan.rows or not np.isfinite(found.winner.last.value):
        raise LoramergeError("No candidate could be scored.", where=next(iter(ground.why.values()), ""))
    held_out = _held_out(ground, first, heads, takes, found.winner)
    data = _data(ground, searched, plan, found, held_out, [*notes, *first.notes])
    written = target.with_suffix(".yaml")
    evaluating.write(written, recipe.dump(ground.recipe(found.winner.point)))
    evaluating.write(target, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return Tuned(data, target, written)


def split_rows(made: Suite) -> tuple[dict[str, tuple[str | None, _files.Part]], list[str]]:
    """For each task which split and rows choose, and what is to be said of it."""
    takes: dict[str, tuple[str | None, _files.Part]] = {}
    notes = []
    for task in made.tasks:
        dev = next((name for name in _VALIDATION if name in task.data.splits and name != task.data.split), None)
        takes[task.data.name] = (dev, "all") if dev else (None, "even")
        told = f"the split {dev} chose, {task.data.split} is reported"
        halves = f"the even rows of {task.data.split} chose, the odd ones are reported"
        notes.append(f"{task.name}: {told if dev else halves}")
    return takes, notes


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
        observed = ground.chosen.observe(task, [source]).observed
        found[task.name] = float(metrics.score(observed, task.prepared.metrics[0])[0])
    return found


def _identity(ground: Ground, searched: Space, plan: Plan) -> dict[str, str]:
    search, chosen = ground.search, ground.chosen
    sources = [f"{candidate.name} {candidate.key}" for candidate in ground.maker.sources]
    tasks = [f"{task.name} {chosen.key(task)} {len(task.items)}" for task in chosen.tasks]
    told = {"space": str(searched), "sampler": search.sampler, "seed": str(search.seed), "objective": search.objective}
    told |= {"sources": "; ".join(sources), "tasks": "; ".join(tasks), "heads": chosen.asked.heads}
    return told | {"rank": str(search.rank), "merging": repr(sorted(ground.merging.items())), **plan.identity}


@contextmanager
def _open_journal(path: Path, force: bool, identity: Mapping[str, str]) -> Iterator[Journal]:
    try:
        journal = Journal(path, identity)
    except BadOption:
        if not force:
            raise
        path.unlink()
        journal = Journal(path, identity)
    with journal:
        yield journal


def _telling(session: Session, plan: Plan) -> Callable[[Found], None]:
    def told(found: Found) -> None:
        session.progress("tune", min(int(found.spent), int(plan.budget)), int(plan.budget), "passes")

    return told


def _held_out(ground: Ground, first: Suite, heads: Any, takes: Mapping[str, Any], winner: Trial) -> dict[str, Any]:
    """The winner and the sources on the rows that did not choose."""
    others: dict[str, tuple[str | None, _files.Part]] = {}
    others = {name: (None, "all" if split else "odd") for name, (split, _) in takes.items()}
    reported = again(first, replace(first.asked, takes=others), heads)
    best = ground.entry(winner.point)
    assert best is not None
    return evaluating.run(reported, [best, *ground.maker.adapters()])


def _data(
    ground: Ground, searched: Space, plan: Plan, found: Found, held_out: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    assert found.winner is not None
    best = found.winner
    ways = {d.name: list(d.domain.grid(2)) for d in searched.dimensions}
    return {
        "schema": SCHEMA,
        "kind": "search",
        "base": ground.chosen.base,
        "space": ways,
        "sampler": ground.search.sampler,
        "seed": ground.search.seed,
        "objective": ground.search.objective,
        "budget": plan.budget,
        "spent": round(found.spent, 3),
        "trials": [_trial(ground, trial, best, plan.rows) for trial in found.trials],
        "winner": {
            "name": named(best.point),
            "point": dict(best.point),
            "recipe": recipe.to_mapping(ground.recipe(best.point)),
        },
        "validation": {"value": best.last.value, "low": best.last.low, "high": best.last.high},
        "held_out": held_out,
        "notes": ["the validation score of the best of many is too high; the held-out score is not", *notes],
    }


def _trial(ground: Ground, trial: Trial, best: Trial, rows: int) -> dict[str, Any]:
    name = named(trial.point)
    good = np.isfinite(trial.last.value)
    state = (
        "winner" if trial is best else "failed" if not good else "finished" if trial.last.rows == rows else "dropped"
    )
    rungs = [
        {"rows": one.rows, "value": one.value, "low": one.low, "high": one.high}
        for one in trial.rungs
        if np.isfinite(one.value)
    ]
    told = {"number": trial.number, "point": dict(trial.point), "name": name, "rungs": rungs, "state": state}
    return {**told, "why": ground.why.get(name, "")}
