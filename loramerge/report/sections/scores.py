"""Who scored what: a table with intervals, and dots with intervals for each task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loramerge.report import words
from loramerge.report.html import Html, el, join
from loramerge.report.inputs import Candidate, Estimate, Evaluation, Mean, Score, Task
from loramerge.report.plots import Dot, dots
from loramerge.report.ranking import Ranking
from loramerge.report.section import Block, Figure, Gallery, Section, Table

_DOTS = 40
"""Candidates in a plot; of more the best."""
_NOTES = (
    "A number, below it its interval, below that the share of what the task's own adapter has on the same rows. "
    "★ is the best of what was merged, ≈ is not proven worse than it (the interval of the difference on the same rows "
    "holds zero); sources and the base are there to compare with. The mean is over tasks, of the shares where there "
    "are such. Intervals that overlap do not prove that two candidates are equal, nor do separate ones say that a "
    "difference matters."
)


def section(name: str, found: Evaluation, title: str = "Scores") -> Section | None:
    """Tables and plots of one evaluation."""
    if not found.scores and not found.means:
        return None
    ranking = Ranking(found)
    means = list(_means(ranking))
    blocks: list[Block] = [*means[:1]]
    if means[1:]:
        blocks.append(Gallery(means[1:], tall=_tall(ranking)))
    blocks += [_table(ranking), *_plots(ranking), *_more(ranking)]
    return Section(f"{title}: {words.short(name)}" if name else title, blocks, _NOTES)


def _means(ranking: Ranking) -> Iterator[Figure]:
    """The means over all tasks and over each group of tasks, as dots."""
    columns = _columns(ranking.found)
    for title, means, tasks in columns:
        best, known = ranking.best_of(means), {mean.candidate: mean for mean in means}
        shown = [one for one in ranking.order if one.name in known]
        rows = [_dot(ranking, one, known[one.name], best) for one in _few(shown, known)]
        if rows:
            label = f"{title} of {words.count(len(rows), 'candidate')}, with intervals"
            drawn = dots(rows, label=label, x="mean", width=640 if means is ranking.found.means else 420)
            yield Figure(drawn, f"{title} ({words.listed(list(tasks), 8)}).{_cut(shown, rows)}")


def _columns(found: Evaluation) -> list[tuple[str, Sequence[Mean], Sequence[str]]]:
    every = [("Mean over all tasks", found.means, [task.name for task in found.tasks])] if found.means else []
    return [*every, *((f"Mean over “{group.name}”", group.means, group.tasks) for group in found.groups if group.means)]


def _few(shown: Sequence[Candidate], known: dict[str, Mean]) -> list[Candidate]:
    return sorted(shown, key=lambda one: -known[one.name].value if words.finite(known[one.name].value) else 1e300)[
        :_DOTS
    ]


def _cut(shown: Sequence[Candidate], rows: Sequence[Dot]) -> str:
    left = len(shown) - len(rows)
    return f" {left} more are in the table." if left else ""


def _dot(ranking: Ranking, one: Candidate, found: Estimate, best: set[str]) -> Dot:
    return Dot(one.name, found.value, found.low, found.high, one.name in best, ranking.kind_of(one))


def _table(ranking: Ranking) -> Table:
    """Means, means of groups and tasks as columns."""
    columns = [_mean_column(ranking, title, means) for title, means, _ in _columns(ranking.found)]
    columns += [_task_column(ranking, task) for task in ranking.found.tasks]
    rows = [[_name(one), *(cells[row] for _, cells in columns)] for row, one in enumerate(ranking.order)]
    heads = ("candidate", *(head for head, _ in columns))
    return Table(heads, rows, numbers=frozenset(range(1, len(heads))), foldable=True)


def _mean_column(ranking: Ranking, title: str, means: Sequence[Mean]) -> tuple[Html, list[Html]]:
    best, known = ranking.best_of(means), {mean.candidate: mean for mean in means}
    first, _, rest = title.partition(" over ")
    head = join(first, el("br"), el("small", f"over {rest}"))
    return head, [_cell(ranking, known.get(one.name), one.name in best) for one in ranking.order]


def _task_column(ranking: Ranking, task: Task) -> tuple[Html, list[Html]]:
    best = ranking.best_on(task)
    cells = [_cell(ranking, ranking.score(one.name, task.name), one.name in best) for one in ranking.order]
    return _head(task), cells


def _head(task: Task) -> Html:
    rows = f"{task.rows:,} rows" if task.rows else ""
    better = "" if task.higher else "less is better"
    small = ", ".join(filter(None, (task.metric, better, rows)))
    return join(words.short(task.name), el("br"), el("small", small))


def _name(one: Candidate) -> Html:
    said = [one.kind if one.kind in ("base", "adapter") else "", f"rank {words.plain(one.rank)}" if one.rank else ""]
    small = ", ".join(filter(None, said))
    return join(words.short(one.name, 40), *((el("br"), el("small", small)) if small else ()))


def _cell(ranking: Ranking, found: Score | Mean | None, best: bool) -> Html:
    if found is None:
        return join(words.NONE)
    value = words.number(found.value)
    parts: list[object] = [el("b", f"★ {value}") if best else f"≈ {value}" if ranking.even(found) else value]
    if interval := words.span(found.low, found.high):
        parts += [el("br"), el("small", interval)]
    share = found.normalised if isinstance(found, Score) else None
    if words.finite(share):
        parts += [el("br"), el("small", f"{words.percent(share)} of own")]
    return join(*parts)


def _plots(ranking: Ranking) -> Iterator[Gallery]:
    figures = []
    for task in ranking.found.tasks:
        best = ranking.best_on(task)
        scored = [(one, ranking.score(one.name, task.name)) for one in ranking.order]
        rows = [_dot(ranking, one, score, best) for one, score in scored if score is not None][:_DOTS]
        if rows:
            own = next((score.own for _, score in scored if score and words.finite(score.own)), None)
            metric = task.metric + ("" if task.higher else " (less is better)")
            drawn = dots(
                rows,
                label=f"{metric} on {task.name} of {words.count(len(rows), 'candidate')}, with intervals",
                x=metric,
                own=("own adapter", own) if own is not None else None,
            )
            figures.append(Figure(drawn, task.name))
    if figures:
        yield Gallery(figures, "The vertical line is what the task's own adapter has.", tall=_tall(ranking))


def _tall(ranking: Ranking) -> bool:
    return len(ranking.order) > 24


def _more(ranking: Ranking) -> Iterator[Table]:
    """Further metrics, where there are any."""
    keys = list(dict.fromkeys((score.task, metric) for score in ranking.found.scores for metric in score.more))
    if not keys:
        return
    rows = []
    for one in ranking.order:
        scores = [(ranking.score(one.name, task), metric) for task, metric in keys]
        cells = [_estimate(score.more.get(metric) if score else None) for score, metric in scores]
        rows.append([words.short(one.name, 40), *cells])
    heads = [join(words.short(task), el("br"), el("small", metric)) for task, metric in keys]
    yield Table(("candidate", *heads), rows, "Further metrics.", frozenset(range(1, len(heads) + 1)), foldable=True)


def _estimate(found: Estimate | None) -> Html:
    if found is None:
        return join(words.NONE)
    interval = words.span(found.low, found.high)
    return join(words.number(found.value), *((el("br"), el("small", interval)) if interval else ()))
