"""`tune`: the best merge of some adapters by validation rows, and its score on rows it was not chosen by.

Points of the space become merges that are never written; all of a batch run through the base model together. Where a
task has a split for it (dev, validation), that chooses; where it has none, the even rows of the split that is reported
choose and the odd ones are reported. No row is in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loramerge import recipe
from loramerge.api import evaluating
from loramerge.api.candidates import heads_of
from loramerge.api.prepare import inputs_of
from loramerge.api.suite import Asked, Suite, again, suite
from loramerge.core.provenance import finite, sha256_file
from loramerge.errors import BadOption, LoramergeError, UsageError
from loramerge.evaluation import _files
from loramerge.evaluation.candidate import Candidate
from loramerge.search.ground import Ground, objective_of
from loramerge.search.journal import Journal
from loramerge.search.loop import Found, Plan, Trial, run
from loramerge.search.points import named, space_of
from loramerge.search.samplers._sampler import SAMPLERS

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.search.space import Space

SCHEMA = 1
_KEPT = 32
"""Merges that are held at once."""


@dataclass(frozen=True)
class Search:
    """What is searched and how. `space`: `NAME=DOMAIN` texts (none: the scale); without `method` all are linear.

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
    target, written = _targets(session, out, force)
    if asked.part != "all":
        raise UsageError("Which rows choose and which are reported is for the search to say.", hint="--limit N")
    opened, maker = evaluating.sources(session, refs, asked, allow_pickle)
    if not opened:
        raise UsageError("There is nothing to tune.", hint="name two adapters or more")
    maker.most = _KEPT
    heads = heads_of(opened)
    first = suite(session, asked, opened[0].adapter, heads)
    takes, notes = split_rows(first)
    chosen = again(first, replace(asked, takes=takes), heads).shuffled(search.seed)
    merging = {"method": "linear", **evaluating.base_weights(session, asked, opened), **merging}
    ground = Ground(maker, chosen, refs, search, merging)
    searched = space_of(search.space, maker, method=str(merging["method"]), data=bool(merging.get("data")))
    plan = Plan(max(len(task.items) for task in chosen.tasks), search.budget, search.batch)
    objective, identity = objective_of(ground), _identity(ground, searched, plan)
    with Journal(target.with_suffix(".journal"), identity, anew=force) as journal:
        found = run(
            SAMPLERS[search.sampler].start(searched, search.seed),
            ground.observe,
            objective,
            plan,
            journal,
            _telling(session, plan),
        )
    if found.winner is None or found.winner.last.rows < plan.rows or not np.isfinite(found.winner.last.value):
        why = next((trial.why for trial in found.trials if trial.why), "no score is a finite number")
        raise LoramergeError(f"No candidate could be scored: {why.rstrip('.')}.", hint="another --space, or --rank")
    held_out = _held_out(ground, first, heads, takes, found.winner)
    notes += dict.fromkeys([*chosen.notes, *chosen.bench.notes])
    data = finite(_data(ground, searched, plan, found, held_out, notes))
    evaluating.write(target, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    evaluating.write(written, recipe.dump(ground.recipe(found.winner.point)))
    return Tuned(data, target, written)


def _targets(session: Session, out: Path, force: bool) -> tuple[Path, Path]:
    """NAME.json and NAME.yaml. Raises as `check_output`, and BadOption for what is no name."""
    if not out.name:
        raise BadOption(f"{out} is no name of files.", hint="-o tuned")
    plain = out.name.removesuffix(".json").removesuffix(".yaml")
    target, written = (evaluating.target_of(session, out.with_name(plain + end), force) for end in (".json", ".yaml"))
    assert target is not None
    assert written is not None
    return target, written


def split_rows(made: Suite) -> tuple[dict[str, tuple[str | None, _files.Part]], list[str]]:
    """For each task which split and rows choose, and what is to be said of it."""
    takes: dict[str, tuple[str | None, _files.Part]] = {}
    notes = []
    for task in made.tasks:
        dev = next((name for name in _files.VALIDATION if name in task.data.splits and name != task.data.split), None)
        takes[task.name] = (dev, "all") if dev else (None, "even")
        told = f"the split {dev} chose, {task.data.split} is reported"
        halves = f"the even rows of {task.data.split} chose, the odd ones are reported"
        notes.append(f"{task.name}: {told if dev else halves}")
    return takes, notes


def _identity(ground: Ground, searched: Space, plan: Plan) -> dict[str, str]:
    search, chosen = ground.search, ground.chosen
    sources = [f"{candidate.name} {candidate.key}" for candidate in ground.maker.sources]
    tasks = [f"{task.name} {chosen.key(task)} {len(task.items)}" for task in chosen.tasks]
    told = {"space": str(searched), "sampler": search.sampler, "seed": str(search.seed), "objective": search.objective}
    told |= {"sources": "; ".join(sources), "tasks": "; ".join(tasks)}
    heads = [f"{task.name} {Candidate('', replaced=task.head).key}" for task in chosen.tasks]
    told |= {"heads": "; ".join([chosen.asked.heads, *heads]), "statistics": "; ".join(_statistics(ground))}
    told["owners"] = "; ".join(f"{task.name} {task.owner}" for task in chosen.tasks)
    return told | {"rank": str(search.rank), "merging": repr(sorted(ground.merging.items())), **plan.identity}


def _statistics(ground: Ground) -> list[str]:
    """The files of statistics that merges use, each with its hash. Raises what reading them raises."""
    maker, merging = ground.maker, ground.merging
    used = recipe.Recipe((), data=merging.get("data", {}), metric=merging.get("metric"))
    inputs_of(maker.session, used, [one.adapter for one in maker.opened])
    return [f"{file} {sha256_file(maker.session.workspace.root / file)}" for file in used.files]


def _telling(session: Session, plan: Plan) -> Callable[[Found], None]:
    def told(found: Found) -> None:
        session.progress("tune", min(int(found.spent), int(plan.budget)), int(plan.budget), "passes")

    return told


def _held_out(ground: Ground, first: Suite, heads: Any, takes: Mapping[str, Any], winner: Trial) -> dict[str, Any]:
    """The winner and the sources on the rows that did not choose."""
    others: dict[str, tuple[str | None, _files.Part]] = {}
    others = {name: (None, "all" if split else "odd") for name, (split, _) in takes.items()}
    reported = again(first, replace(first.asked, takes=others), heads)
    return evaluating.run(reported, [ground.entry(winner.point), *ground.maker.adapters()])


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
        "trials": [_trial(trial, best, plan.rows) for trial in found.trials],
        "winner": {
            "name": named(best.point),
            "point": dict(best.point),
            "recipe": recipe.to_mapping(ground.recipe(best.point)),
        },
        "validation": {"value": best.last.value, "low": best.last.low, "high": best.last.high},
        "held_out": held_out,
        "notes": ["the validation score of the best of many is too high; the held-out score is not", *notes],
    }


def _trial(trial: Trial, best: Trial, rows: int) -> dict[str, Any]:
    good = np.isfinite(trial.last.value)
    state = (
        "winner" if trial is best else "failed" if not good else "finished" if trial.last.rows == rows else "dropped"
    )
    rungs = [
        {"rows": one.rows, "value": one.value, "low": one.low, "high": one.high}
        for one in trial.rungs
        if np.isfinite(one.value)
    ]
    told = {"number": trial.number, "point": dict(trial.point), "name": named(trial.point), "rungs": rungs}
    return {**told, "state": state, "why": trial.why or ("" if good else "its score is not finite")}
