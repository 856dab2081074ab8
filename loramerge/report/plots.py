"""Whole drawings: lines, dots with intervals, maps of points, heatmaps, parallel axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from loramerge.report import svg
from loramerge.report.html import Html, el, join
from loramerge.report.words import finite, number, short, valued

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 28, 40


@dataclass(frozen=True)
class Point:
    """A place, its interval in y, how large it is drawn, and what is said of it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    size: float = 4.5
    tip: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one name and one kind (which is its colour, dash and shape)."""

    name: str
    kind: int
    points: Sequence[Point]
    strong: bool = False
    marks: bool = True
    steps: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Dot:
    """One row of a plot of dots: a name, a number with its interval, whether it is the best."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    best: bool = False
    kind: int = 1


@dataclass(frozen=True)
class Axis:
    """One of several parallel axes: its name and the places of its values from 0 (below) to 1, with their names."""

    name: str
    places: Sequence[tuple[float, str]] = field(default_factory=tuple)


def curves(
    series: Sequence[Series],
    *,
    label: str,
    x: str,
    y: str,
    width: float = 640,
    height: float = 320,
    log: bool = False,
    zero: bool = False,
    legend: bool = True,
) -> Html:
    """Series over one pair of axes; points that cannot be drawn are left out."""
    ends = [point.y for one in series for point in one.points if finite(point.y)]
    floor = max(ends, default=1.0) * svg.FLOOR if log else -math.inf
    drawn = [_visible(one, floor) for one in series]
    points = [point for one in drawn for point in one.points]
    across = svg.scale([p.x for p in points], _LEFT, width - _RIGHT)
    keys, high = svg.legend(_keys(drawn), _LEFT, height + 16, width - _LEFT)
    values = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    up = svg.scale(values, height - _BOTTOM, _TOP, log=log, zero=zero)
    parts = [svg.x_axis(across, height - _BOTTOM, _TOP, x), svg.y_axis(up, _LEFT, width - _RIGHT, y)]
    parts += [_series(one, across, up) for one in sorted(drawn, key=lambda one: one.strong)]
    return svg.drawing(width, height + (high + 6 if legend else 0), label, *parts, keys if legend else None)


def _keys(series: Sequence[Series]) -> list[svg.Key]:
    """What a legend explains: each name once."""
    return list(dict.fromkeys((one.name, one.kind, _look(one)) for one in series if one.points))


def _look(one: Series) -> Literal["mark", "hollow", "line"]:
    if not one.marks:
        return "line"
    return "hollow" if all(point.hollow for point in one.points) else "mark"


def _visible(one: Series, floor: float) -> Series:
    kept = [p for p in one.points if finite(p.x) and finite(p.y) and p.y > floor]
    return replace(one, points=kept)


def _series(one: Series, across: svg.Scale, up: svg.Scale) -> Html:
    places = [(across(p.x), up(p.y)) for p in one.points]
    parts = []
    if one.joined and len(places) > 1:
        parts.append(svg.track(_stairs(places) if one.steps else places, one.kind, strong=one.strong))
    for point, (left, top) in zip(one.points, places, strict=True):
        if finite(point.low) and finite(point.high):
            assert point.low is not None
            assert point.high is not None
            parts.append(svg.whisker(left, up(point.low), left, up(point.high), one.kind))
        if one.marks:
            tip = point.tip or f"{one.name}: {number(point.x)}, {valued(point.y, point.low, point.high)}"
            parts.append(svg.mark(left, top, one.kind, size=point.size, hollow=point.hollow, tip=tip))
    return join(*parts)


def _stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    made = [places[0]]
    for x, y in places[1:]:
        made += [(x, made[-1][1]), (x, y)]
    return made


def dots(rows: Sequence[Dot], *, label: str, x: str, own: tuple[str, float] | None = None, width: float = 420) -> Html:
    """One row a name: a dot and its interval; `own` is a line to compare with, and its name."""
    left = 14 + svg.LETTER * max((len(short(row.name)) for row in rows), default=1)
    drawn = [row for row in rows if finite(row.value)]
    values = [v for row in drawn for v in (row.value, row.low, row.high) if v is not None]
    across = svg.scale([*values, *([own[1]] if own else [])], left, width - _RIGHT)
    top = 24 if own else 10
    bottom = top + svg.LINE * len(rows)
    parts = [svg.x_axis(across, bottom, top, x)]
    if own:
        at = across(own[1])
        parts += [svg.line(at, bottom, at, top - 4, "mark-line"), _over(at, top - 8, own[0], width)]
    for number_, row in enumerate(rows):
        parts.append(_dot(row, across, top + svg.LINE * (number_ + 0.5), left))
    return svg.drawing(width, bottom + 40, label, *parts)


def _over(x: float, y: float, words: str, width: float) -> Html:
    half = svg.LETTER * (len(words) + 1) / 2
    return svg.label(min(max(x, half), width - half), y, words, anchor="middle")


def _dot(row: Dot, across: svg.Scale, y: float, left: float) -> Html:
    class_ = "tick best" if row.best else "tick"
    parts = [svg.label(left - 8, y + 4, short(row.name), anchor="end", class_=class_)]
    if not finite(row.value):
        return join(*parts, svg.label(left + 6, y + 4, number(row.value)))
    if finite(row.low) and finite(row.high):
        assert row.low is not None
        assert row.high is not None
        parts.append(svg.whisker(across(row.low), y, across(row.high), y, row.kind))
    tip = f"{row.name}: {valued(row.value, row.low, row.high)}"
    parts.append(svg.mark(across(row.value), y, row.kind, size=5.5 if row.best else 4, tip=tip))
    return join(*parts)


def heatmap(names: Sequence[str], values: Sequence[Sequence[float]], *, label: str) -> Html:
    """A square of numbers from −1 to 1: one colour each way from nothing, and the numbers where they have room."""
    left = 12 + svg.LETTER * max((len(short(name, 24)) for name in names), default=1)
    cell = 46.0 if len(names) <= 12 else max(13.0, 560 / len(names))
    size = cell * len(names)
    top = 12 + 0.74 * left
    parts = []
    for i, name in enumerate(names):
        at = top + cell * (i + 0.5)
        parts.append(svg.label(left - 8, at + 4, short(name, 24), anchor="end"))
        parts.append(svg.label(left + cell * (i + 0.5) + 3, top - 8, short(name, 24), turn=-45))
        for j, value in enumerate(values[i]):
            tip = f"{name}, {names[j]}: {number(value)}"
            parts.append(_cell(left + cell * j, top + cell * i, cell, value, tip, words=cell >= 34))
    return svg.drawing(left + size + 0.74 * left, top + size + 8, label, *parts)


def _cell(x: float, y: float, size: float, value: float, tip: str, *, words: bool) -> Html:
    if not finite(value):
        drawn = el("rect", el("title", tip), x=x, y=y, width=size - 1, height=size - 1, class_="cell-none")
    else:
        share = f"{100 * min(1.0, abs(value)):.0f}%"
        colour = f"fill:color-mix(in srgb,var({'--more' if value >= 0 else '--less'}) {share},var(--paper))"
        drawn = el("rect", el("title", tip), x=x, y=y, width=size - 1, height=size - 1, class_="cell", style=colour)
    text = (
        svg.label(x + size / 2, y + size / 2 + 4, number(value, 2), anchor="middle", class_="cell") if words else None
    )
    return join(drawn, text)


def scatter(
    series: Sequence[Series],
    links: Sequence[tuple[float, float, float, float]] = (),
    *,
    label: str,
    x: str,
    y: str,
    width: float = 480,
    height: float = 380,
) -> Html:
    """Points in a plane, of one scale both ways; `links` are thin lines (x, y) to (x, y)."""
    points = [point for one in series for point in one.points]
    keys, high = svg.legend(_keys(series), 10, height + 16, width - 10)
    across, up = _square([p.x for p in points], [p.y for p in points], width, height)
    frame = el("rect", x=10, y=_TOP, width=width - 20, height=height - _TOP - 24, class_="frame")
    thin = [svg.line(across(a), up(b), across(c), up(d), "link") for a, b, c, d in links]
    marks = [
        svg.mark(across(p.x), up(p.y), one.kind, size=p.size, hollow=p.hollow, tip=p.tip or one.name)
        for one in series
        for p in one.points
    ]
    words = [svg.label(width / 2, height - 6, x, anchor="middle", class_="title"), svg.label(10, 18, y, class_="title")]
    return svg.drawing(width, height + high + 6, label, frame, *thin, *marks, *words, keys)


def _square(xs: Sequence[float], ys: Sequence[float], width: float, height: float) -> tuple[svg.Scale, svg.Scale]:
    """Scales in which a unit is as long across as it is upwards."""
    middle = [(max(v, default=1.0) + min(v, default=0.0)) / 2 for v in (xs, ys)]
    reach = [(max(v, default=1.0) - min(v, default=0.0)) / 2 or 1e-9 for v in (xs, ys)]
    wide, tall = width - 20, height - _TOP - 24
    unit = 1.1 * max(reach[0] / wide, reach[1] / tall)
    across = svg.Scale(middle[0] - unit * wide, middle[0] + unit * wide, 10, width - 10)
    return across, svg.Scale(middle[1] - unit * tall, middle[1] + unit * tall, height - 24, _TOP)


def parallel(
    axes: Sequence[Axis], tracks: Sequence[tuple[Sequence[float], int, bool, str]], *, label: str, width: float = 760
) -> Html:
    """Axes side by side, and lines across them: their places (0 to 1) on each, kind, whether strong, and tip."""
    height, top, bottom = 340.0, 46.0, 312.0
    gap = (width - 150) / max(1, len(axes) - 1)
    lefts = [75 + gap * number_ for number_ in range(len(axes))]

    def y(place: float) -> float:
        return bottom + place * (top - bottom)

    parts = []
    for places, kind, strong, tip in sorted(tracks, key=lambda found: found[2]):
        drawn = svg.track([(x, y(p)) for x, p in zip(lefts, places, strict=True)], kind, strong=strong)
        parts.append(el("g", el("title", tip), drawn, class_=None if strong else "faint"))
    letters = max(6, int(gap / svg.LETTER))
    for x, axis in zip(lefts, axes, strict=True):
        parts += [
            svg.line(x, top, x, bottom, "axis"),
            svg.label(x, 20, short(axis.name, letters), anchor="middle", class_="title"),
        ]
        room = min(letters, int((width - x - 6) / svg.LETTER))
        parts += [svg.label(x + 6, y(p) + 4, short(name, room), class_="tick halo") for p, name in axis.places]
    return svg.drawing(width, height, label, *parts)
