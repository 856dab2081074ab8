"""The singular values of a result beside those of its parents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.report import words
from loramerge.report.plots import Point, Series, curves
from loramerge.report.section import Figure, Gallery, Section

if TYPE_CHECKING:
    from loramerge.report.material import Result

_NOTES = (
    "Each line is one adapter: the root mean square of the j-th singular value over the family's modules, on a "
    "logarithmic scale. The result is the thick line. A result far below its parents was averaged away; one far above "
    "will act more strongly than any of them; a line that ends early has a lower rank."
)


def section(result: Result) -> Section | None:
    """One plot a family."""
    found = result.measured
    if not found.spectra:
        return None
    wide = 640 if len(found.spectra) == 1 else 420
    figures = []
    for family, rows in found.spectra.items():
        last = len(found.names) - 1
        series = [
            Series(name, 0 if at == last else at + 1, [Point(j, v) for j, v in enumerate(row, 1)], strong=at == last)
            for at, (name, row) in enumerate(zip(found.names, rows, strict=True))
        ]
        label = f"Singular values of {family}: {words.listed(list(found.names))}"
        figures.append(
            Figure(curves(series, label=label, x="number j", y="singular value", log=True, width=wide), family)
        )
    return Section(f"Spectra of {words.short(result.name)}", [Gallery(figures)], _NOTES)
