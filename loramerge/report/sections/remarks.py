"""What was said while the work was done, and what a report cannot tell."""

from __future__ import annotations

from collections.abc import Iterator

from loramerge.report import words
from loramerge.report.html import join
from loramerge.report.material import Material
from loramerge.report.section import Points, Section


def section(found: Material) -> Section | None:
    """Notes of the records and files, and the limits that follow from the numbers themselves."""
    items = list(dict.fromkeys([*_notes(found), *_limits(found)]))
    return Section("Notes and limits", [Points([join(item) for item in items])]) if items else None


def _notes(found: Material) -> Iterator[str]:
    for result in found.results:
        yield from (f"{result.name}: {words.clean(note, 500)}" for note in result.notes)
    for name, scores in found.scores:
        yield from (f"{name}: {words.clean(note, 500)}" for note in scores.notes)
    for name, search in found.searches:
        yield from (f"{name}: {words.clean(note, 500)}" for note in search.notes)


def _limits(found: Material) -> Iterator[str]:
    for name, scores in found.scores:
        part = [task for task in scores.tasks if task.rows and task.of and task.rows < task.of]
        if part:
            told = words.listed([f"{task.name} {task.rows:,} of {task.of:,}" for task in part], 8)
            yield f"{name}: scored on part of the rows ({told})"
        if any(not words.finite(score.value) for score in scores.scores):
            yield f"{name}: scores shown as {words.NONE} could not be computed"
    for name, search in found.searches:
        if not search.held_out:
            yield f"{name}: the search reports no held-out score; a validation score of a winner is too high"
