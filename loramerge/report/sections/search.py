"""How a search went: trials over passes, who survived which rung, and the space seen from the side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from loramerge.report import words
from loramerge.report.html import Html, el, join
from loramerge.report.inputs import Search, Trial
from loramerge.report.plots import Axis, Point, Series, curves, parallel
from loramerge.report.section import Block, Figure, Section, Table

_LISTED = 30
_STATES = {"winner": 2, "finished": 1, "dropped": 8, "failed": 4}
_NOTES = (
    "Every trial is one point of the space, scored on few rows first and on more only while it can still win; what is "
    "dropped early has a wide interval and is no verdict on the point. The step line is the best that has reached the "
    "last rung so far. Passes count full runs over the validation rows."
)


def section(name: str, found: Search) -> Section:
    """Plots and the table of trials."""
    blocks: list[Block] = []
    if any(trial.last for trial in found.trials):
        blocks += [_course(found), *_rungs(found)]
    blocks += [*_space(found), _facts(found)]
    if found.trials:
        blocks.append(_table(found))
    return Section(f"Search: {words.short(name)}", blocks, _NOTES)


def _course(found: Search) -> Figure:
    """Values over passes, by state, and the best so far."""
    trials = [trial for trial in found.trials if trial.last]
    costs = list(accumulate(trial.last.rows for trial in trials if trial.last))
    total = costs[-1] if costs else 0
    spent = found.spent if words.finite(found.spent) and total else None
    places = [cost / total * spent for cost in costs] if spent else [float(trial.number) for trial in trials]
    series: list[Series] = []
    best: list[Point] = []
    for state, kind in _STATES.items():
        points = [_point(trial, x) for trial, x in zip(trials, places, strict=True) if _state(trial) == state]
        if points:
            series.append(Series(state, kind, points, joined=False))
    deepest = max(trial.last.rows for trial in trials if trial.last)
    for trial, x in zip(trials, places, strict=True):
        value = trial.last.value if trial.last else float("nan")
        if trial.last and trial.last.rows == deepest and words.finite(value):
            best.append(Point(x, max([value, *(point.y for point in best)])))
    series.append(Series("best so far", 0, best, strong=True, marks=False, steps=True))
    across = "passes spent (shared out by rows)" if spent else "trial"
    label = f"Value of {words.count(len(trials), 'trial')} over {across}"
    return Figure(
        curves(series, label=label, x=across, y="validation value", width=760), "Trials in the order they ran."
    )


def _state(trial: Trial) -> str:
    return trial.state if trial.state in _STATES else "finished"


def _point(trial: Trial, x: float) -> Point:
    last = trial.last
    assert last is not None
    return Point(
        x, last.value, last.low, last.high, tip=f"{_named(trial)}: {words.valued(last.value, last.low, last.high)}"
    )


def _named(trial: Trial) -> str:
    return trial.name or f"#{trial.number} {words.options(trial.point)}"


def _rungs(found: Search) -> list[Figure]:
    """Each trial's value as its rows grow, and how many got so far; nothing where there is one rung only."""
    rows = sorted({rung.rows for trial in found.trials for rung in trial.rungs})
    if len(rows) < 2:
        return []
    series = []
    for state, kind in _STATES.items():
        for trial in found.trials:
            if trial.rungs and _state(trial) == state:
                tip = _named(trial)
                points = [Point(rung.rows, rung.value, size=3, tip=tip) for rung in trial.rungs]
                series.append(Series(state, kind, points, strong=state == "winner"))
    alive = [sum(any(rung.rows == at for rung in trial.rungs) for trial in found.trials) for at in rows]
    said = ", ".join(f"{count} on {at:,} rows" for count, at in zip(alive, rows, strict=True))
    drawn = curves(series, label=f"Racing: {said}", x="rows", y="validation value", width=760)
    return [Figure(drawn, f"Racing: {said}. The thick line is the winner.")]


def _space(found: Search) -> list[Figure]:
    """Parallel axes: one a dimension of the space, the value last."""
    trials = [trial for trial in found.trials if trial.last and words.finite(trial.last.value)]
    names = list(dict.fromkeys(name for trial in trials for name in trial.point))
    if len(trials) < 2 or not names:
        return []
    columns = [_axis(name, [trial.point.get(name) for trial in trials]) for name in names]
    columns.append(_axis("value", [trial.last.value for trial in trials if trial.last]))
    tracks = [
        ([places[at] for _, places in columns], _STATES[_state(trial)], trial.state == "winner", _named(trial))
        for at, trial in enumerate(trials)
    ]
    label = f"{words.count(len(trials), 'trial')} across {words.listed([*names, 'value'])}"
    drawn = parallel([axis for axis, _ in columns], tracks, label=label)
    return [
        Figure(drawn, "The space from the side: a line a trial, its value at the right; the thick line is the winner.")
    ]


def _axis(name: str, values: Sequence[Any]) -> tuple[Axis, list[float]]:
    """An axis, and the places of these values on it: numbers by size, all else in the order met; none at the bottom."""
    known = [value for value in values if value is not None]
    bottom = 0.12 if len(known) < len(values) else 0.0
    if all(words.finite(value) and not isinstance(value, bool) for value in known):
        low, high = min(known, default=0.0), max(known, default=1.0)
        ends = {low: bottom, high: 1.0} if high > low else {low: (1 + bottom) / 2}
        places = {v: bottom + (v - low) / (high - low) * (1 - bottom) if high > low else ends[low] for v in known}
        marks = [(at, words.number(value)) for value, at in ends.items()]
    else:
        kinds = list(dict.fromkeys(map(words.plain, known)))
        step = (1 - bottom) / max(1, len(kinds) - 1)
        where = {kind: bottom + step * at if len(kinds) > 1 else 0.5 for at, kind in enumerate(kinds)}
        places = {words.plain(value): where[words.plain(value)] for value in known}
        marks = [(at, kind) for kind, at in where.items()]
        values = [None if value is None else words.plain(value) for value in values]
    if bottom:
        marks.append((0.0, words.NONE))
    return Axis(name, marks), [0.0 if value is None else places[value] for value in values]


def _facts(found: Search) -> Table:
    rows: list[tuple[object, object]] = [
        (f"space: {words.clean(name, 60)}", words.plain(values)) for name, values in found.space.items()
    ]
    rows += [("sampler", found.sampler or words.NONE), ("seed", words.number(found.seed))]
    rows.append(("passes", f"{words.number(found.spent, 1)} of {words.number(found.budget, 1)}"))
    if found.winner:
        rows += [("winner", found.winner.name), ("its point", words.options(found.winner.point))]
    if found.validation:
        value = found.validation
        rows.append(("on the validation rows", words.valued(value.value, value.low, value.high)))
    return Table(("", "as it was searched"), rows)


def _table(found: Search) -> Table:
    def order(trial: Trial) -> tuple[int, float]:
        value = trial.last.value if trial.last and words.finite(trial.last.value) else -1e300
        return -(trial.last.rows if trial.last else 0), -value

    ranked = sorted(found.trials, key=order)
    rows = [_row(trial) for trial in ranked[:_LISTED]]
    left = f" The best {_LISTED} of {len(ranked)}." if len(ranked) > _LISTED else ""
    columns = ("trial", "point", "state", "rows", "value")
    return Table(columns, rows, f"Trials, those with most rows first.{left}", frozenset({3, 4}))


def _row(trial: Trial) -> list[object]:
    last = trial.last
    why = (el("br"), el("small", words.clean(trial.why, 120))) if trial.why else ()
    value: Html = join(words.NONE)
    if last:
        interval = words.span(last.low, last.high)
        value = join(words.number(last.value), *((el("br"), el("small", interval)) if interval else ()))
    state = join(el("b", "★ winner") if trial.state == "winner" else trial.state, *why)
    return [f"#{trial.number}", _pointed(trial.point), state, words.number(last.rows if last else None), value]


def _pointed(point: Mapping[str, Any]) -> str:
    return words.clean(words.options(point), 160)
