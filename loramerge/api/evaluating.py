"""Evaluation: adapters, merges that nobody has written, and the ways between them, in one pass each task."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import basing, opening, scoring
from loramerge.api.candidates import Entry, Maker, contenders, heads_of
from loramerge.api.making import recipe_of
from loramerge.api.path import places
from loramerge.api.result import versions
from loramerge.api.suite import Asked, OnTask, Suite, suite
from loramerge.errors import BadOption, UsageError
from loramerge.methods._method import MERGE
from loramerge.recipe import LARGEST

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.workspace.observations import Journal

SCHEMA = 1


@dataclass(frozen=True)
class Sweep:
    """Which merges of the sources are candidates: every method with every value of its options, ranks and scales.

    `options` maps a name to the values it takes; a method takes those that it has. `points`: so many points of
    the straight way between two sources. `coefficients`: a file of rows of weights, a number for each source.
    """

    methods: Sequence[str] = ()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranks: Sequence[str] = ()
    scales: Sequence[float] = ()
    points: int | None = None
    coefficients: Path | None = None
    sources: bool = True
    base: bool = False


@dataclass(frozen=True)
class Evaluated:
    """What came of it: `data` is what is written as JSON."""

    data: Mapping[str, Any]
    path: Path | None = None


def evaluate(
    session: Session,
    refs: Sequence[str],
    asked: Asked,
    sweep: Sweep | None = None,
    *,
    out: Path | None = None,
    force: bool = False,
    allow_pickle: bool = False,
    **merging: Any,
) -> Evaluated:
    """Score adapters and merges of them on tasks; `merging` is as for `recipe_of`, for all merges.

    With `out` the scores are written there, and what has been observed stands beside it until then: the same call
    after an interruption goes on where it was. Raises OutputExists before any work, and what opening adapters,
    base and tasks raises.
    """
    started = time.monotonic()
    target = target_of(session, out, force)
    opened, maker = sources(session, refs, asked, allow_pickle)
    merging = {**base_weights(session, asked, opened), **merging}
    entries = list(candidates(session, refs, maker, sweep or Sweep(), merging))
    if not entries:
        raise UsageError("There is nothing to evaluate.", hint="name adapters, --with-base, or --method")
    like = opened[0].adapter if opened else None
    made = suite(session, asked, like, heads_of(opened))
    with _journal(target) as journal:
        data = run(made, entries, journal)
    data["seconds"] = round(time.monotonic() - started, 3)
    if target:
        _write(target, data)
    return Evaluated(data, target)


def sources(
    session: Session, refs: Sequence[str], asked: Asked, allow_pickle: bool
) -> tuple[list[opening.Opened], Maker]:
    """The adapters that are named, or all of the workspace's sources, and what makes candidates of them."""
    work = recipe_of(session, refs, bases=())
    opened = opening.open_all(session, work.adapters, allow_pickle=allow_pickle) if work.adapters else []
    return opened, Maker(session, opened)


def base_weights(session: Session, asked: Asked, opened: Sequence[opening.Opened]) -> dict[str, Any]:
    """The base's weights for merges of DoRA: what the candidates are run on is there anyway."""
    from loramerge.formats._dora import has_dora

    if not any(has_dora(one.adapter) for one in opened):
        return {}
    return {"bases": [str(basing.folder(session, asked.base)[0])]}


def candidates(
    session: Session, refs: Sequence[str], maker: Maker, sweep: Sweep, merging: Mapping[str, Any]
) -> Iterator[Entry]:
    """Everything that is to be scored, each under a name of its own."""
    from loramerge.evaluation.candidate import Candidate

    if sweep.base:
        yield Entry(Candidate("base"), "base")
    if sweep.sources:
        yield from maker.adapters()
    yield from _merges(session, refs, maker, sweep, merging)
    if sweep.points is not None:
        yield from _way(maker, sweep.points)
    if sweep.coefficients is not None:
        yield from _rows(session, maker, sweep.coefficients)


def _merges(
    session: Session, refs: Sequence[str], maker: Maker, sweep: Sweep, merging: Mapping[str, Any]
) -> Iterator[Entry]:
    _check_asked(sweep, merging)
    unknown = set(sweep.options)
    for method in sweep.methods:
        known = {name for name in sweep.options if name.replace("-", "_") in _fields(method)}
        unknown -= known
        axes = [(name, sweep.options[name]) for name in sorted(known)]
        own_rank = MERGE[method].rank == "own"
        for values in itertools.product(*(choices for _, choices in axes)):
            options = dict(zip((name for name, _ in axes), values, strict=True))
            ranks: list[str | None] = [None] if own_rank else [*sweep.ranks] or [None]
            for rank in ranks:
                for scale in sweep.scales or [1.0]:
                    what = {**merging, "method": method, "options": options, "rank": rank, "scale": scale}
                    what |= {} if MERGE[method].needs else {"data": {}}
                    recipe = recipe_of(session, refs, **what)
                    yield maker.merge(recipe, _name(method, options, rank, scale, sweep))
    if unknown:
        hint = ", ".join(sweep.methods) or "--method names those that have it"
        raise BadOption(f"None of the methods has an option {sorted(unknown)[0]!r}.", hint=hint)


def _check_asked(sweep: Sweep, merging: Mapping[str, Any]) -> None:
    """Raises BadOption for what says how to merge where nothing that could be merged so is."""
    data = merging.get("data")
    given = {"rank": sweep.ranks, "scale": sweep.scales, "weights": merging.get("weighting"), "data": data}
    if not sweep.methods and (said := [name for name, value in given.items() if value]):
        raise BadOption(
            f"{said[0]} says how to merge, and nothing is merged.",
            hint="--method linear; points and rows of coefficients are as exact as they are",
        )
    if data and not any(MERGE[method].needs for method in sweep.methods):
        raise BadOption(
            "None of the methods takes statistics.",
            where=", ".join(sweep.methods),
            hint=", ".join(name for name in MERGE.names() if MERGE[name].needs),
        )


def _fields(method: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = MERGE[method].options.__dataclass_fields__  # type: ignore[attr-defined]
    return found


def _name(method: str, options: Mapping[str, str], rank: str | None, scale: float, sweep: Sweep) -> str:
    """The method, and what tells it from the others of a sweep."""
    said = [f"{name}={value}" for name, value in options.items()]
    said += [f"rank={rank}"] if rank and len(sweep.ranks) > 1 else []
    said += [f"×{scale:g}"] if len(sweep.scales) > 1 or scale != 1 else []
    return " ".join([method, *said])


def _way(maker: Maker, points: int) -> Iterator[Entry]:
    """Points of the straight way between two sources."""
    if len(maker.opened) != 2:
        raise UsageError(f"A way goes from one adapter to one other, not among {len(maker.opened)}.")
    for t in places(points):
        yield maker.weighed([1 - t, t], f"t={t:g}", t=t, method="interpolate")


def _rows(session: Session, maker: Maker, path: Path) -> Iterator[Entry]:
    """A candidate for each row of a file of weights, JSON: lists of numbers, or {"name": …, "weights": […]}."""
    where = session.workspace.root / path.expanduser()
    from loramerge.workspace.tables import read_rows

    for at, row in enumerate(read_rows(where)):
        name, weights = (row.get("name"), row.get("weights")) if isinstance(row, dict) else (None, row)
        found = weights if isinstance(weights, list) else []
        numbers = [float(w) for w in found if isinstance(w, int | float) and abs(w) <= LARGEST]
        if not len(numbers) == len(found) == len(maker.opened):
            raise BadOption(
                f"Row {at + 1} has no weight for each of {len(maker.opened)} adapters.",
                where=str(path),
                hint="[[0.5, 0.5], [1, 0]]",
            )
        yield maker.weighed(numbers, str(name or f"row {at + 1}"))


def run(made: Suite, entries: Sequence[Entry], journal: Journal | None = None) -> dict[str, Any]:
    """Run all candidates on all tasks: the evaluation as it is written."""
    names = opening.distinct([entry.name for entry in entries])
    leading = contenders([entry.kind for entry in entries])
    rows, shares = [], []
    notes = list(made.notes)
    for task in made.tasks:
        own = _owners(entries, task)
        store = journal.of(made.key(task)) if journal else None
        found = made.observe(task, [entry.candidate for entry in entries], store)
        told, share = scoring.scores(task, names, found.observed, own, leading)
        rows += told
        if share is not None:
            shares.append((own, share))
        elif task.owner:
            notes.append(f"{task.name}: no shares are told, since {task.owner} itself is no candidate")
        notes += [f"{task.name}: {note}" for note in found.notes]
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        "base": made.base,
        "device": made.device,
        "dtype": made.asked.dtype,
        "versions": versions("transformers", "peft"),
        "part": made.part,
        "heads": made.asked.heads,
        "tasks": [task.facts for task in made.tasks],
        "candidates": [
            {"name": name, "kind": entry.kind, **entry.facts} for name, entry in zip(names, entries, strict=True)
        ],
        "scores": rows,
        "means": scoring.means(names, shares, leading) if len(shares) == len(made.tasks) else [],
        "notes": [*notes, *made.bench.notes],
    }


def _owners(entries: Sequence[Entry], task: OnTask) -> list[int]:
    """Where the source is that a task belongs to, then where candidates are that equal it; nothing where it is not."""
    first = next((at for at, one in enumerate(entries) if one.kind == "adapter" and one.name == task.owner), None)
    if first is None:
        return []
    keys = [entry.candidate.with_weights(task.head).key for entry in entries]
    return [first, *(at for at, key in enumerate(keys) if key == keys[first] and at != first)]


def target_of(session: Session, out: Path | None, force: bool) -> Path | None:
    """Where the output goes. Raises as `check_output`."""
    from loramerge.workspace.tables import check_output

    if out is None:
        return None
    target = session.workspace.root / out.expanduser()
    check_output(target, force)
    return target


@contextmanager
def _journal(target: Path | None) -> Iterator[Journal | None]:
    """What has been observed, in a file beside the output, which is removed when the output is there."""
    from loramerge.workspace.observations import Journal

    if target is None:
        yield None
        return
    path = target.with_name(f"{target.name}.journal")
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()


def write(target: Path, text: str) -> None:
    """A text as a file, whole or not at all."""
    from loramerge.workspace.tables import write_whole

    write_whole(target, text)


def _write(target: Path, data: Mapping[str, Any]) -> None:
    """The evaluation as JSON; its journal is no longer needed then."""
    write(target, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    target.with_name(f"{target.name}.journal").unlink(missing_ok=True)
