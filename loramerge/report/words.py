"""Numbers and names as a reader wants them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"
LONGEST = 2000
"""Longer text is cut."""
LARGEST = 1e300
"""Beyond it, what is drawn would leave the range of numbers."""


def number(value: Any, digits: int = 3) -> str:
    """A number in few digits; "–" for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return NONE if value is None or isinstance(value, float) else clean(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return clean(f"{value:,}", 40).replace("-", "−")
    size = abs(value)
    if size and (size < 10**-digits or size >= 1e6):
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value + 0.0:.{digits if size < 10 else 1 if size < 1000 else 0}f}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent; "–" for what is none."""
    return NONE if value is None or not finite(value) else f"{100 * value:.{digits}f} %".replace("-", "−")


def span(low: float | None, high: float | None) -> str:
    """An interval; nothing where there is none."""
    if low is None or high is None or not (finite(low) and finite(high)):
        return ""
    return f"{number(low)}{'–' if low >= 0 else ' to '}{number(high)}"


def valued(value: float, low: float | None, high: float | None) -> str:
    """A number with its interval in brackets, where it has one."""
    return f"{number(value)} ({found})" if (found := span(low, high)) else number(value)


def finite(value: Any) -> bool:
    """Whether this is a number that can be drawn."""
    return isinstance(value, int | float) and -LARGEST < value < LARGEST


def count(amount: int, noun: str, plural: str = "") -> str:
    """As "1 task" and "2 tasks"."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """As "a, b and c"; of many the first few and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short(name: object, letters: int = 28) -> str:
    """A name cut in the middle where it is long."""
    cleaned = clean(name)
    half = (letters - 1) // 2
    return cleaned if len(cleaned) <= letters else f"{cleaned[:half]}…{cleaned[-half:]}"


def plain(value: Any) -> str:
    """An option's value: numbers in few digits, text as it is, anything larger as JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return clean(json.dumps(value, ensure_ascii=False, default=str))


def options(values: Mapping[str, Any]) -> str:
    """As "k=8, gauge=raw"."""
    return ", ".join(f"{clean(key)}={plain(value)}" for key, value in values.items())


def clean(value: object, limit: int = LONGEST) -> str:
    """One harmless line: what does not print becomes a space, long text is cut.

    Control characters do not print, nor marks that turn the reading direction, nor halves of surrogate pairs.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
