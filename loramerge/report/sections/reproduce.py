"""How to do it again: commands and recipes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from loramerge.report import words
from loramerge.report.material import Material
from loramerge.report.ranking import Ranking
from loramerge.report.section import Block, Code, Section, Table
from loramerge.report.words import clean

_LONGEST = 20_000


def section(found: Material) -> Section:
    """The recipe of each result, of the best candidate and of the winner, what was measured with, and commands."""
    blocks: list[Block] = []
    for result in found.results:
        blocks.append(_recipe(result.record.recipe, f"The recipe of {result.name}"))
        name = shlex.quote(clean(result.name))
        blocks.append(Code(f"loramerge rebuild {name}\nloramerge merge recipe.yaml -o {name}", "Make it again"))
    for name, search in found.searches:
        if search.winner and search.winner.recipe:
            blocks.append(_recipe(search.winner.recipe, f"The recipe of the winner of {name}"))
    for name, scores in found.evaluations:
        best = Ranking(scores).ranked(scores.means)[:1]
        recipes = {one.name: one.recipe for one in scores.candidates}
        if best and (recipe := recipes[best[0].candidate]):
            blocks.append(_recipe(recipe, f"The recipe of the best of {name}, {best[0].candidate}"))
    blocks += [_measured(name, scores.tasks, scores) for name, scores in found.scores]
    return Section("How to reproduce", blocks)


def _recipe(recipe: Mapping[str, Any], caption: str) -> Code:
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "\n…"
    return Code(cut, f"{caption}: save as recipe.yaml")


def _measured(name: str, tasks: Any, scores: Any) -> Table:
    rows: list[tuple[object, ...]] = [
        (task.name, task.split or "", task.file or "", (task.sha256 or "")[:12], words.number(task.rows))
        for task in tasks
    ]
    versions = ", ".join(f"{key} {value}" for key, value in scores.versions.items())
    chosen = [
        f"{what} {words.plain(value)}" for what, value in (("rows", scores.part), ("heads", scores.heads)) if value
    ]
    told = [scores.base or "", scores.device or "", scores.dtype or "", versions]
    seconds = f"{words.number(scores.seconds, 1)} s" if words.finite(scores.seconds) else ""
    caption = f"{name}: {', '.join(filter(None, [*told, *chosen, seconds]))}"
    return Table(("task", "split", "file", "sha256", "rows"), rows, caption, frozenset({4}))
