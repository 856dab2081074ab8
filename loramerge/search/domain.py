"""The values that one setting may take, and their place on the unit interval."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Protocol

from loramerge.errors import BadOption

Value = str | int | float


class Domain(Protocol):
    """Values in an order, laid out on [0, 1]: `at(place(v))` is v, and equal lengths hold equally likely values."""

    def at(self, place: float) -> Value:
        """The value at a place in [0, 1]."""

    def place(self, value: Value) -> float:
        """Where a value lies; for a domain of single values, the middle of its part."""

    def grid(self, count: int) -> list[Value]:
        """At most `count` values from end to end, or all where they can be counted as choices."""

    def __str__(self) -> str:
        """The text that `parse` reads."""


@dataclass(frozen=True)
class Choice:
    """One of some values: `ties,tsv,linear` or `4|8|16`."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < len(self.values):
            raise BadOption("A value is given twice.", where=str(self))

    def at(self, place: float) -> Value:
        """Each value has an equal part."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def place(self, value: Value) -> float:
        """The middle of its part."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def grid(self, count: int) -> list[Value]:
        """All of them, whatever the count."""
        return list(self.values)

    def __str__(self) -> str:
        return "|".join(map(str, self.values))


@dataclass(frozen=True)
class Uniform:
    """Any number between two, by its logarithm with `log`: `0.3..2`, `log:0.001..1`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check(self.low, self.high, self.log, str(self))

    def at(self, place: float) -> Value:
        """Evenly from low to high, or from log low to log high."""
        if self.log:
            return self.low * math.exp(place * math.log(self.high / self.low))
        return self.low + place * (self.high - self.low)

    def place(self, value: Value) -> float:
        """Its share of the way."""
        if self.log:
            return math.log(float(value) / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)

    def grid(self, count: int) -> list[Value]:
        """Equal steps, both ends included."""
        return [self.at(i / (count - 1)) for i in range(count)] if count > 1 else [self.at(0.5)]

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low!r}..{self.high!r}"


@dataclass(frozen=True)
class Integer:
    """Any whole number from low to high, both included: `int:2..16`, `log:int:1..1024`."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check(self.low, self.high, self.log, str(self))

    def at(self, place: float) -> Value:
        """Each whole number has an equal part, or with `log` one that grows smaller."""
        return min(math.floor(float(self._wide.at(place))), self.high)

    def place(self, value: Value) -> float:
        """Within its part."""
        return self._wide.place(float(value) + 0.5)

    def grid(self, count: int) -> list[Value]:
        """Nearly equal steps, both ends included."""
        inner = Uniform(self.low, self.high, self.log).grid(min(count, self.high - self.low + 1))
        return sorted({round(float(value)) for value in inner})

    @property
    def _wide(self) -> Uniform:
        """Each whole number is the part from itself up to the next."""
        return Uniform(self.low, self.high + 1, self.log)

    def __str__(self) -> str:
        return f"{'log:' * self.log}int:{self.low}..{self.high}"


def _check(low: float, high: float, log: bool, text: str) -> None:
    if not low < high or not high - low <= sys.float_info.max:
        raise BadOption(f"{text} goes from {low} to {high}, which is no way up.", hint="0.3..2")
    if log and low <= 0:
        raise BadOption(f"{text} takes the logarithm of {low}.", hint="log:0.001..1")


def parse(text: str) -> Domain:
    """A domain from its text; raises BadOption."""
    kinds, _, rest = text.strip().rpartition(":")
    if ".." in rest:
        return _between(rest, kinds.split(":") if kinds else [], text)
    values = [part.strip() for part in text.replace("|", ",").split(",")]
    if not all(values):
        raise BadOption(f"{text!r} has a value that is empty.", hint="ties,tsv,linear or 0.3..2 or int:2..16")
    return Choice(tuple(_number(value) for value in values))


def _between(text: str, kinds: list[str], whole: str) -> Domain:
    low, _, high = text.partition("..")
    kind = int if "int" in kinds else float
    try:
        if set(kinds) - {"int", "log"}:
            raise ValueError
        ends = kind(low), kind(high)
    except ValueError:
        raise BadOption(f"{whole!r} is no range.", hint="0.3..2, log:0.001..1 or int:2..16") from None
    return (Integer if kind is int else Uniform)(*ends, log="log" in kinds)  # type: ignore[arg-type]


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        if abs(value) <= sys.float_info.max:
            return value
    return text
