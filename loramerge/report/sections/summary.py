"""The main findings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from loramerge.report import words
from loramerge.report.inputs import Evaluation, Mean, Search
from loramerge.report.material import Material, Result
from loramerge.report.ranking import Ranking
from loramerge.report.section import Points, Section
from loramerge.report.sections.way import barrier, ways


def section(found: Material) -> Section:
    """Sentences that follow from the numbers below them."""
    said: list[str] = []
    for result in found.results:
        said += [*_made(result), *_alike(result)]
    several = len(found.evaluations) + len(found.searches) > 1
    for name, scores in found.evaluations:
        said += _prefixed(name if several else "", _scored(scores))
    for name, search in found.searches:
        said += _prefixed(name if several else "", _searched(search))
    return Section("Summary", [Points(said or ["There is nothing to report: no scores, no trials."])])


def _prefixed(name: str, said: Iterator[str]) -> list[str]:
    return [f"{name}: {one}" if name else f"{one[0].upper()}{one[1:]}" for one in said]


def _made(result: Result) -> Iterator[str]:
    lineage, overall = result.record.lineage, result.overall
    parents = words.count(len(lineage.parents), "adapter")
    base = f" of {words.clean(lineage.base, 80)}" if lineage.base else ""
    yield (
        f"{result.name} is made of {parents}{base} by {lineage.method}"
        f" ({words.options(_set(result)) or 'no options'}), rank {words.number(overall.get('rank'))}"
    )
    error = overall.get("relative_error")
    if words.finite(error):
        worst = max(result.families, key=_error, default={})
        most = f"; most in {worst.get('family')} ({words.percent(_error(worst))})" if len(result.families) > 1 else ""
        yield f"Truncation left out {words.percent(error)} of the merged update's norm{most}"
    energy = overall.get("energy_kept")
    if words.finite(energy):
        yield f"Its clusters keep {words.percent(energy)} of the energy of the exact sum"
    ratio = overall.get("norm_ratio")
    if words.finite(ratio):
        yield f"Its norm is {words.number(ratio, 2)} times the mean norm of its parents"


def _set(result: Result) -> dict[str, Any]:
    """The options that are set, and what a recipe says beside them."""
    recipe, found = result.record.recipe, result.record.lineage.options
    options = {key: value for key, value in found.items() if value is not None}
    options |= {"scale": recipe["scale"]} if recipe.get("scale", 1.0) != 1.0 else {}
    return options | ({"rules for modules": len(recipe["modules"])} if recipe.get("modules") else {})


def _error(row: Mapping[str, Any]) -> float:
    value = row.get("relative_error")
    return float(value) if value is not None and words.finite(value) else 0.0


def _alike(result: Result) -> Iterator[str]:
    cosine, names = result.measured.cosine, result.measured.names
    parents = len(names) - 1
    cells = [(cosine[i][j], i, j) for i, j in combinations(range(parents), 2)]
    pairs = [cell for cell in cells if words.finite(cell[0])]
    if pairs:
        value, i, j = max(pairs)
        mean = sum(value for value, *_ in pairs) / len(pairs)
        yield (
            f"The parents' updates have a mean cosine of {words.number(mean)}; the most alike are"
            f" {names[i]} and {names[j]} ({words.number(value)})"
        )
    own = [(cosine[-1][at], names[at]) for at in range(parents) if words.finite(cosine[-1][at])]
    if len(own) > 1:
        most, least = max(own), min(own)
        yield (
            f"The result is nearest to {most[1]} (cosine {words.number(most[0])})"
            f" and farthest from {least[1]} ({words.number(least[0])})"
        )


def _scored(found: Evaluation) -> Iterator[str]:
    ranking = Ranking(found)
    yield f"{words.count(len(found.candidates), 'candidate')} on {words.count(len(found.tasks), 'task')}"
    for title, means in [("all tasks", found.means), *((f"“{group.name}”", group.means) for group in found.groups)]:
        yield from _best(title, ranking, means)
    best = {task.name: ranking.best_on(task) for task in found.tasks}
    wins = [next(iter(names)) for names in best.values() if len(names) == 1]
    if len(found.tasks) > 1 and wins:
        counts = sorted({name: wins.count(name) for name in wins}.items(), key=lambda item: -item[1])
        told = words.listed([f"{name} on {number}" for name, number in counts], 4)
        yield f"best alone by task: {told} of {words.count(len(found.tasks), 'task')}"
    yield from (said for way in ways(found) if (said := barrier(ranking, way)))


def _best(title: str, ranking: Ranking, means: Sequence[Mean]) -> Iterator[str]:
    ranked = ranking.ranked(means)
    if not ranked:
        return
    first, *others = ranked
    said = f"best over {title}: {first.candidate} with {words.valued(first.value, first.low, first.high)}"
    if others:
        second = others[0]
        said += f", before {second.candidate} with {words.valued(second.value, second.low, second.high)}"
        said += _apart(ranking, first, others)
    yield said


def _apart(ranking: Ranking, first: Mean, others: Sequence[Mean]) -> str:
    """Whether the best is better than the next, as far as that is known: on the same rows, or by the intervals."""
    second = others[0]
    if second.behind is not None:
        even = sum(ranking.even(one) for one in others)
        told = f"{even} of the {len(others)} others are not proven worse" if even else "all others are worse"
        return f"; on the same rows {told}"
    if words.finite(first.low) and words.finite(second.high):
        over = (first.low or 0.0) <= (second.high or 0.0)
        return "; their intervals overlap" if over else "; their intervals are apart"
    return ""


def _searched(found: Search) -> Iterator[str]:
    states = [trial.state for trial in found.trials]
    told = [f"{states.count(state)} {state}" for state in ("finished", "dropped", "failed") if state in states]
    beside = f" ({', '.join(told)} beside the winner)" if told else ""
    known = words.finite(found.spent)
    spent = f" in {words.number(found.spent, 1)} of {words.number(found.budget, 1)} passes" if known else ""
    yield f"{words.count(len(states), 'trial')}{spent}{beside}"
    if found.winner:
        value = found.validation
        on = f", validation {words.valued(value.value, value.low, value.high)}" if value else ""
        yield f"the winner is {found.winner.name}{on}"
    held = found.held_out
    if held and found.winner:
        mean = Ranking(held).mean(found.winner.name)
        if mean:
            yield f"held out, the winner has {words.valued(mean.value, mean.low, mean.high)}"
