"""What lies between two adapters: scores along the path from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from loramerge.report import words
from loramerge.report.inputs import Candidate, Estimate, Evaluation
from loramerge.report.plots import Point, Series, curves
from loramerge.report.ranking import Ranking
from loramerge.report.section import Block, Figure, Gallery, Points, Section

_NOTES = (
    "Each point is an adapter between two others, at the share t of the way from the first to the second; whiskers are "
    "intervals. The barrier is how far the worst point falls below the straight line between the ends: none means that "
    "the two ends lie in one basin and can be averaged."
)

Look = Callable[[str], Estimate | None]


@dataclass(frozen=True)
class Way:
    """The points of one path, the smallest t first."""

    name: str
    points: Sequence[Candidate]


def ways(found: Evaluation) -> list[Way]:
    """The paths of an evaluation: points of the same method between the same parents."""
    groups: dict[str, list[Candidate]] = {}
    for one in found.candidates:
        if words.finite(one.t):
            between = " to ".join(words.short(name) for name in one.parents)
            name = ", ".join(filter(None, (one.method or "", between))) or "path"
            groups.setdefault(name, []).append(one)
    return [Way(name, sorted(some, key=lambda one: one.t or 0.0)) for name, some in groups.items() if len(some) > 1]


def section(name: str, found: Evaluation) -> Section | None:
    """One plot for the mean and for each task."""
    paths = ways(found)
    if not paths:
        return None
    ranking = Ranking(found)
    figures = [_figure("mean", "mean over tasks", paths, ranking.mean)] if found.means else []
    for task in found.tasks:
        figures.append(_figure(task.name, task.metric, paths, partial(ranking.score, task=task.name)))
    sentences = [said for way in paths if (said := barrier(ranking, way))]
    first: list[Block] = [Points(sentences)] if sentences else []
    return Section(f"Along the path: {words.short(name)}", [*first, Gallery(figures)], _NOTES)


def barrier(ranking: Ranking, way: Way) -> str:
    """How far the mean falls between the ends; nothing where it is not known."""
    means = [(one.t or 0.0, ranking.mean(one.name)) for one in way.points]
    known = [(t, mean.value) for t, mean in means if mean and words.finite(mean.value)]
    if len(known) < 3 or known[0][0] == known[-1][0]:
        return ""
    (start, first), (end, last) = known[0], known[-1]
    falls = [(first + (last - first) * (t - start) / (end - start) - value, t) for t, value in known[1:-1]]
    depth, t = max(falls)
    if depth <= 0:
        return f"{way.name}: no barrier, the mean is nowhere below the line between the ends"
    return f"{way.name}: a barrier of {words.number(depth)} in the mean, at t = {words.number(t, 2)}"


def _figure(name: str, metric: str, paths: Sequence[Way], look: Look) -> Figure:
    series = []
    for kind, way in enumerate(paths, 1):
        found: list[tuple[Candidate, Estimate | None]] = [(one, look(one.name)) for one in way.points]
        points = [
            Point(
                one.t or 0.0,
                score.value,
                score.low,
                score.high,
                size=3.5,
                tip=f"{one.name}: {words.valued(score.value, score.low, score.high)}",
            )
            for one, score in found
            if score
        ]
        series.append(Series(way.name, kind, points))
    label = f"{metric} of {name} along {words.count(len(paths), 'path')}"
    drawn = curves(series, label=label, x="t", y=metric, width=420, height=270, legend=len(paths) > 1)
    return Figure(drawn, name)
