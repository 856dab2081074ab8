"""What a merge kept and what it cost, by family of modules and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loramerge.core.catalog import family_of
from loramerge.core.names import place
from loramerge.report import svg, words
from loramerge.report.plots import Point, Series, curves
from loramerge.report.section import Block, Figure, Section, Table

if TYPE_CHECKING:
    from loramerge.report.material import Result

_COLUMNS = {
    "modules": "modules",
    "units_in": "units in",
    "rank": "rank",
    "relative_error": "relative error",
    "energy_kept": "energy kept",
    "cluster_sizes": "cluster sizes",
    "mixed": "mixed",
    "norm": "norm",
    "norm_ratio": "norm ratio",
}
_SHARES = ("relative_error", "energy_kept", "mixed")
_CURVES = {"relative_error": "Relative error", "energy": "Energy kept"}
_MEANING = {
    "relative_error": "Relative error is the norm of what truncation to the result's rank left out, as a share of the "
    "merged update's.",
    "energy_kept": "Energy kept is the squared cosine between the result and the exact weighted sum.",
    "mixed": "Mixed is 0 where each cluster is one adapter's and 1 where all adapters mix evenly.",
    "norm_ratio": "Norm ratio compares the result's norm with the mean norm of its parents.",
}


def section(result: Result) -> Section | None:
    """The table by family and, where a family spans layers, its course through them."""
    rows = result.families
    if not rows:
        return None
    whole = [{"family": "all", **result.overall}] if result.overall and len(rows) > 1 else []
    blocks: list[Block] = [_table([*rows, *whole]), *_courses(result)]
    told = [meaning for key, meaning in _MEANING.items() if any(row.get(key) is not None for row in rows)]
    return Section(f"What {words.short(result.name)} kept", blocks, " ".join(told))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    cells = [[row.get("family", "?"), *(_cell(name, row.get(name)) for name in names)] for row in rows]
    numbers = frozenset(range(1, len(names) + 1))
    return Table(("family", *(_COLUMNS[name] for name in names)), cells, numbers=numbers)


def _cell(name: str, value: Any) -> object:
    if name in _SHARES and words.finite(value):
        return svg.bar(float(value), words.number(float(value)))
    return words.number(value)


def _courses(result: Result) -> list[Figure]:
    """One plot for each number that all modules have: layers across, a line a family."""
    base, found = result.record.lineage.base, []
    for key, name in _CURVES.items():
        points: dict[str, list[Point]] = {}
        for module, row in result.modules.items():
            layer, value = place(module).layer, row.get(key)
            if layer is not None and value is not None and words.finite(value):
                tip = f"{module}: {words.number(float(value))}"
                points.setdefault(family_of(module, base), []).append(Point(layer, float(value), tip=tip))
        if max(map(len, points.values()), default=0) > 1:
            series = [
                Series(family, kind, sorted(some, key=lambda p: p.x))
                for kind, (family, some) in enumerate(points.items(), 1)
            ]
            label = f"{name} of each module by layer, one line for each of {words.listed(list(points))}"
            drawn = curves(series, label=label, x="layer", y=name.lower(), zero=True, height=260)
            found.append(Figure(drawn, f"{name} of each module, by layer."))
    return found
