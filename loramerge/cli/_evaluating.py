"""What `eval` and `tune` share: from options to one call of the library, and how scores are shown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge import options
from loramerge.cli._session import session
from loramerge.errors import BadOption

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.api.suite import Asked
    from loramerge.cli._output import Output


def evaluate(refs: Sequence[str], values: dict[str, Any]) -> None:
    """Score what the flags say and show it."""
    with session() as (work, out):
        from loramerge import api

        asked = asked_of(values)
        pairs = {name: value.split("|") for name, value in options.pairs(values.pop("pairs")).items()}
        if ks := values.pop("ks"):
            pairs["k"] = ks.split(",")
        sweep = api.Sweep(
            methods=[name for text in values.pop("methods") for name in text.split(",")],
            options=pairs,
            ranks=_listed(values.pop("ranks")),
            scales=[options.convert(text, float, "--scale") for text in _listed(values.pop("scales"))],
            points=values.pop("points"),
            coefficients=values.pop("coefficients"),
            sources=not values.pop("no_sources"),
            base=values.pop("with_base"),
        )
        values["data"] = options.pairs(values["data"], "--data NAME=FILE")
        with _resumable(work, out, values["out"]):
            made = api.evaluate(work, refs, asked, sweep, **values)
        show(out, made.data)
        if made.path:
            out.hint(f"loramerge report {_typed(made.path)} -o report.html")


def asked_of(values: dict[str, Any]) -> Asked:
    """The tasks and the base that the flags name; takes them out of the flags."""
    from loramerge import api

    names = ("base", "tasks", "split", "limit", "part", "heads", "dtype", "rows")
    given = {name: values.pop(name) for name in names if name in values}
    own = options.pairs(values.pop("own"), "--own TASK=NAME")
    kind = options.pairs(values.pop("task_options"), "-T block=64")
    return api.Asked(**given, own=own, options=kind, check=not values.pop("no_check"))


def show(out: Output, data: Mapping[str, Any]) -> None:
    """A row for each candidate: its score on every task, with what it may be off by, and the mean."""
    from loramerge.api.candidates import contenders

    found = {(row["candidate"], row["task"]): row for row in data["scores"]}
    means = {row["candidate"]: row for row in data["means"]}
    leading = contenders([candidate["kind"] for candidate in data["candidates"]])
    rows = []
    for at, candidate in enumerate(data["candidates"]):
        name, marked = candidate["name"], at in leading and len(leading) > 1
        row: dict[str, Any] = {"candidate": name}
        row |= {task["name"]: _told(found[name, task["name"]], marked) for task in data["tasks"]}
        rows.append(row | ({"share of own": _told(means[name], marked)} if means else {}))
    title = ", ".join(f"{task['name']}: {task['metric']} of {task['rows']}" for task in data["tasks"])
    out.table(rows, id="candidate", title=title, data=dict(data))
    if len(leading) > 1:
        out.note("★ is the best, ≈ not proven worse than it: the difference on the same items, at 95 %")
    for note in data["notes"]:
        out.note(note)


def _told(row: Mapping[str, Any], marked: bool) -> str:
    """A score with its interval, and how it stands to the best."""
    gap = row["behind"]
    even = gap is not None and (gap["low"] or 0.0) <= 0  # what is no number is below all
    mark = " ★" if gap is None else " ≈" if even else ""
    return _interval(row) + (mark if marked and row["value"] is not None else "")


def _interval(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    # Where there is a value, what is no number is beyond all of them.
    low, high = (none if row[side] is None else f"{row[side]:.3g}" for side, none in (("low", "−∞"), ("high", "∞")))
    return f"{row['value']:.4g} ({low}–{high})"


def _listed(text: str | None) -> list[str]:
    found = [part.strip() for part in text.split(",")] if text else []
    if not all(found):
        raise BadOption(f"{text!r} is no list.", hint="8,16")
    return found


def tune(refs: Sequence[str], values: dict[str, Any]) -> None:
    """Search as the flags say and show what was found."""
    with session() as (work, out):
        from loramerge import api

        asked = asked_of(values)
        names = ("space", "sampler", "budget", "batch", "objective", "rank")
        search = api.Search(**{name: values.pop(name) for name in names}, seed=values["seed"])
        values["data"] = options.pairs(values["data"], "--data NAME=FILE")
        with _resumable(work, out, values["out"]):
            made = api.tune(work, refs, asked, search, **values)
        held = {row["candidate"]: row for row in made.data["held_out"]["means"]}
        name = made.data["winner"]["name"]
        facts = {
            "winner": name,
            "recipe": str(made.recipe),
            "validation": _interval(made.data["validation"]),
            "held out": _interval(held[name]) if name in held else None,
            "trials": len(made.data["trials"]),
            "passes": made.data["spent"],
        }
        out.result(
            "Tuned",
            facts,
            id="recipe",
            more={"data": dict(made.data)},
            notes=[*made.data["notes"], *made.data["held_out"]["notes"]],
        )
        out.hint(f"loramerge merge {_typed(made.recipe)}")


@contextmanager
def _resumable(work: Session, out: Output, target: Path | None) -> Iterator[None]:
    """An interruption tells that the same call goes on, where something is kept for it."""
    try:
        yield
    except KeyboardInterrupt:
        journal = work.workspace.root / f"{target}.journal"
        if target and journal.exists():
            out.note(f"what was observed is kept in {journal.name}: the same call goes on from there")
        raise


def _typed(path: Path) -> str:
    """A path as one types it here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
