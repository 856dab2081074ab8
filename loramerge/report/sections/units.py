"""Where the rank-one units of the adapters lie, and the clusters that were made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.report import words
from loramerge.report.plots import Point, Series, scatter
from loramerge.report.section import Figure, Gallery, Section

if TYPE_CHECKING:
    from loramerge.report.material import Result
    from loramerge.report.measure import UnitMap

_PLANE = (
    "Each mark is one rank-one unit of one adapter, in the plane that holds most of the units' variance (the shares of "
    "the two axes are given); its size follows the norm of its product. "
)
_CLUSTERS = (
    "Thin lines go from the units to the mean of their cluster, the ring, which becomes one unit of the result. "
    "Clusters whose lines reach several colours mix adapters. "
)
_PRODUCTS = "Places depend on the directions of the products b aᵀ alone. "
_CROWDED = "What is near in the plane need not be near in the whole space."


def section(result: Result) -> Section | None:
    """One map a family."""
    maps = result.measured.maps
    if not maps:
        return None
    clustered, products = any(one.centres for one in maps), all(one.products for one in maps)
    notes = _PLANE + (_CLUSTERS if clustered else "") + (_PRODUCTS if products else "") + _CROWDED
    return Section(f"Units of {words.short(result.name)}", [Gallery([_figure(result, one) for one in maps])], notes)


def _owners(found: UnitMap) -> list[int]:
    return sorted({owner for owner, *_ in found.places})


def _units(found: UnitMap, owner: int, name: str, kind: int) -> Series:
    points = [
        Point(x, y, size=2.2 + 3.8 * size**0.5, tip=name, hollow=not kind)
        for at, x, y, size in found.places
        if at == owner
    ]
    return Series(name, kind, points)


def _figure(result: Result, found: UnitMap) -> Figure:
    names = result.measured.names
    last = len(names) - 1
    series = [_units(found, owner, names[owner], kind=0 if owner == last else owner + 1) for owner in _owners(found)]
    series.sort(key=lambda one: one.kind > 0)  # the result below its parents
    if found.centres:
        centres = [
            Point(x, y, size=7, tip=f"mean of {words.count(n, 'unit')}", hollow=True) for x, y, n in found.centres
        ]
        series.insert(0, Series("mean of a cluster", 0, centres))
    first, second = (words.percent(share, 0) for share in found.shares)
    what = (
        f"{len(found.centres)} clusters of {len(found.places)} units" if found.centres else f"{len(found.places)} units"
    )
    drawn = scatter(
        series,
        found.links,
        label=f"Map of {what} of {found.module}, coloured by adapter",
        x=f"axis 1, {first} of the variance",
        y=f"axis 2, {second}",
    )
    left = f"; {found.left_out} smaller ones not drawn" if found.left_out else ""
    return Figure(drawn, f"{found.family}: {found.module} ({what}{left})")
