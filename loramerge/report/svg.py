"""The parts of drawings: scales, axes, marks, legends. Pure functions from numbers to SVG.

Colours are classes (`c0` is ink, `c1` … `c8` the palette of `assets/page.css`), so that one drawing is right on
light, dark and paper; marks differ in shape too, lines in dashes, so that colour is never all there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from loramerge.report.html import Html, el, join
from loramerge.report.words import finite, short

COLOURS = 8
LETTER = 6.7
"""Width of a letter of 12 pixels, somewhat above the mean."""
LINE = 18
FLOOR = 1e-9
"""What is below this share of the largest value has no place on a logarithmic scale."""
_TINY = 1e-290
_SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus", "cross")
_DASHES = (None, "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Scale:
    """From values (low to high) to pixels (start to end)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else self._linear(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def _linear(self, value: float) -> tuple[float, float, float]:
        return self.low, self.high, value

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside, about so many."""
        return _powers(self.low, self.high) if self.log else _rounds(self.low, self.high, about)


def scale(values: Sequence[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> Scale:
    """A scale that holds all values that can be drawn, with some air; with `zero` it begins there."""
    drawn = [value for value in values if finite(value) and (value > _TINY or not log)] or [1.0 if log else 0.0, 1.0]
    low, high = min(drawn), max(drawn)
    if log:
        low = max(low, high * FLOOR)
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    low = 0.0 if zero and low >= 0 else low
    air = (high - low) * 0.05 or abs(high) * 0.1
    air = air if air > _TINY else 1.0
    return Scale(low if zero and low == 0 else low - air, high + air, start, end)


def _rounds(low: float, high: float, about: int) -> list[float]:
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(round_ for round_ in (1, 2, 2.5, 5, 10) if round_ * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [at * step for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 3 else (1,)
    every = max(1, round(decades / 6))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= value <= high]


def drawing(width: float, height: float, label: str, *parts: object) -> Html:
    """A whole drawing; `label` is what those hear who do not see it."""
    return el(
        "svg",
        *parts,
        class_="plot",
        role="img",
        aria_label=label,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        style=f"--wide:{width:.0f}",
        xmlns="http://www.w3.org/2000/svg",
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line."""
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: float, y: float, words: object, *, anchor: str = "start", class_: str = "tick", turn: float = 0) -> Html:
    """Text whose base line is at y."""
    turned = f"rotate({turn:g} {x:.1f} {y:.1f})" if turn else None
    return el("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_, transform=turned)


def x_axis(scale: Scale, y: float, top: float, title: str = "") -> Html:
    """Ticks with grid lines up to `top`, numbers below y, and what they are."""
    parts = [line(scale.start, y, scale.end, y, "axis")]
    ticks = scale.ticks(max(2, int((scale.end - scale.start) / 75)))
    for value, words in zip(ticks, _labels(ticks), strict=True):
        at = scale(value)
        parts += [line(at, y, at, top, "grid"), label(at, y + 16, words, anchor="middle")]
    if title:
        parts.append(label((scale.start + scale.end) / 2, y + 34, title, anchor="middle", class_="title"))
    return join(*parts)


def y_axis(scale: Scale, x: float, right: float, title: str = "") -> Html:
    """Ticks with grid lines to the `right`, numbers left of x, and what they are above."""
    parts = [line(x, scale.start, x, scale.end, "axis")]
    ticks = scale.ticks(max(2, int(abs(scale.end - scale.start) / 38)))
    for value, words in zip(ticks, _labels(ticks), strict=True):
        at = scale(value)
        parts += [line(x, at, right, at, "grid"), label(x - 6, at + 4, words, anchor="end")]
    if title:
        parts.append(label(2, scale.end - 9, title, class_="title"))
    return join(*parts)


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks' numbers with as many digits as tell them apart, and no more."""
    largest = max(map(abs, ticks), default=0.0)
    if largest >= 1e5 or 0 < largest < 1e-3:
        tried = ([f"{tick:.{digits}e}" for tick in ticks] for digits in range(15))
        distinct = next(found for found in tried if len(set(found)) == len(set(ticks)))
        return [_scientific(tick) if float(tick) else "0" for tick in distinct]
    gaps = [abs(b - a) for a, b in pairwise(ticks)] or [largest or 1.0]
    digits = max(0, math.ceil(-math.log10(min(gaps)) - 1e-9))
    digits += any(abs(round(tick, digits) - tick) > 1e-9 for tick in ticks)
    return [f"{tick + 0.0:.{digits}f}".replace("-", "−") for tick in ticks]


def _scientific(text: str) -> str:
    """As "1.5e9" and "2e−7"."""
    digits, _, power = text.partition("e")
    return f"{digits}e{int(power)}".replace("-", "−")


def mark(x: float, y: float, kind: int, *, size: float = 4.5, hollow: bool = False, tip: str = "") -> Html:
    """A mark of the shape that belongs to a colour, with words for the pointer."""
    told = el("title", tip) if tip else None
    class_ = f"mark c{colour(kind)}" + (" hollow" if hollow else "")
    shape = _SHAPES[kind % len(_SHAPES)]
    if shape == "circle":
        return el("circle", told, cx=x, cy=y, r=size, class_=class_)
    return el("path", told, d=_outline(shape, x, y, size), class_=class_ + (" open" if shape in _OPEN else ""))


_OPEN = ("plus", "cross")


def _outline(shape: str, x: float, y: float, r: float) -> str:
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "down": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    }
    if shape in corners:
        return "M" + "L".join(f"{x + r * dx:.1f} {y + r * dy:.1f}" for dx, dy in corners[shape]) + "Z"
    arms = ((1, 0), (0, 1)) if shape == "plus" else ((0.8, 0.8), (0.8, -0.8))
    return "".join(f"M{x - r * dx:.1f} {y - r * dy:.1f}L{x + r * dx:.1f} {y + r * dy:.1f}" for dx, dy in arms)


def whisker(x1: float, y1: float, x2: float, y2: float, kind: int) -> Html:
    """An interval."""
    return line(x1, y1, x2, y2, f"whisker c{colour(kind)}")


def track(points: Sequence[tuple[float, float]], kind: int, *, strong: bool = False) -> Html:
    """A line through points."""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = None if strong else _DASHES[max(0, kind - 1) // COLOURS % len(_DASHES)]
    return el("path", d=path, class_=f"track c{colour(kind)}" + (" strong" if strong else ""), stroke_dasharray=dash)


def colour(kind: int) -> int:
    """The colour of the kind-th thing; 0 is ink, and what is beyond the palette begins anew."""
    return (kind - 1) % COLOURS + 1 if kind > 0 else 0


Key: TypeAlias = tuple[str, int, Literal["mark", "hollow", "line"]]
"""A name, its kind, and how it looks."""


def legend(keys: Sequence[Key], x: float, y: float, width: float) -> tuple[Html, float]:
    """Looks and names in lines of that width from y on, and how high they are."""
    parts: list[Html] = []
    for (name, kind, look), left, top in _flow(keys, width):
        at, middle = x + left + 6, y + top - 4
        if look == "line":
            parts.append(track([(at - 7, middle), (at + 7, middle)], kind, strong=True))
        else:
            parts.append(mark(at, middle, kind, hollow=look == "hollow"))
        parts.append(label(x + left + 16, y + top, short(name)))
    rows = 1 + max((top for *_, top in _flow(keys, width)), default=-LINE) / LINE
    return join(*parts), rows * LINE


def _flow(keys: Sequence[Key], width: float) -> Iterator[tuple[Key, float, float]]:
    left = top = 0.0
    for one in keys:
        wide = 30 + LETTER * len(short(one[0]))
        if left and left + wide > width:
            left, top = 0.0, top + LINE
        yield one, left, top
        left += wide


def bar(share: float | None, words: str = "") -> Html:
    """A small bar that stands for a share from 0 to 1, and the words beside it."""
    if share is None or not finite(share):
        return join(words)
    length = 60 * min(1.0, max(0.0, share))
    track_, filled = (
        el("rect", x=0, y=0, width=float(wide), height=8, rx=1.5, class_=class_)
        for wide, class_ in ((60, "bar-track"), (length, "bar"))
    )
    drawn = el("svg", track_, filled, class_="bar", viewBox="0 0 60 8", width="60", height="8", aria_hidden="true")
    return join(drawn, words)
