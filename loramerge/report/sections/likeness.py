"""How alike the parents and the result are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.report import words
from loramerge.report.plots import heatmap
from loramerge.report.section import Figure, Section

if TYPE_CHECKING:
    from loramerge.report.material import Result

_NOTES = (
    "The cosine of two adapters' updates, all modules taken together: 1 is the same direction, 0 unrelated, −1 "
    "opposite. The last row and column are the result's: how much of each parent's direction it has."
)


def section(result: Result) -> Section | None:
    """The cosines as a heatmap."""
    found = result.measured
    if len(found.cosine) < 2:
        return None
    label = f"Cosine of the updates of {words.listed(list(found.names))}"
    drawn = heatmap(found.names, found.cosine, label=label)
    return Section(
        f"Likeness of {words.short(result.name)}", [Figure(drawn, "Cosine of the updates; the result is last.")], _NOTES
    )
