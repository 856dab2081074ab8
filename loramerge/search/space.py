"""What is searched: named settings, each with its domain, some of which only certain methods have.

    method=ties,tsv,linear    scale=0.3..2    density=0.1..0.9    lego.k=4|8|16    weight.math=0..1.5

A point is a plain mapping of the settings that its method has. `lego.k` is the setting k of the method lego alone;
a plain `density` is that of every method with such an option.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from loramerge.errors import BadOption
from loramerge.options import pairs
from loramerge.registry import near
from loramerge.search.domain import Choice, Domain, Value, parse

Point = Mapping[str, Value]
"""A value for each setting that applies."""

COMMON = ("method", "scale", "rank")
"""Settings that every method has; so are all whose names begin with WEIGHT."""

WEIGHT = "weight."

_MOST = 100_000
"""Points of a grid."""


@dataclass(frozen=True)
class Dimension:
    """One setting: its name in points, its domain, and the methods that have it (None: all)."""

    name: str
    domain: Domain
    methods: frozenset[str] | None = None

    def applies(self, point: Point) -> bool:
        """Whether a point of that method has the setting."""
        return self.methods is None or point.get("method") in self.methods

    def __str__(self) -> str:
        of = "" if self.methods is None else f" of {', '.join(sorted(self.methods))}"
        return f"{self.name}={self.domain}{of}"


@dataclass(frozen=True)
class Space:
    """Dimensions; the method, where it is one of them, comes first."""

    dimensions: tuple[Dimension, ...]

    def point(self, cube: Sequence[float]) -> Point:
        """The point at a place in the unit cube; what does not apply is left out."""
        found: dict[str, Value] = {}
        for dimension, place in zip(self.dimensions, cube, strict=True):
            if dimension.applies(found):
                found[dimension.name] = dimension.domain.at(place)
        return found

    def cube(self, point: Point) -> list[float]:
        """Where a point lies in the unit cube; what does not apply lies in the middle."""
        return [d.domain.place(point[d.name]) if d.applies(point) else 0.5 for d in self.dimensions]

    def grid(self, count: int = 5) -> list[Point]:
        """All combinations, with `count` values of each range. Raises BadOption where they are too many to list."""
        axes = self._axes(count)
        if sum(math.prod(map(len, one.values())) for one in axes) > _MOST:
            raise BadOption(f"The grid has more than {_MOST:,} points.", hint="--sampler random, or fewer settings")
        return [dict(zip(one, values, strict=True)) for one in axes for values in itertools.product(*one.values())]

    def _axes(self, count: int) -> list[dict[str, list[Value]]]:
        """For every method the values of each setting that it has."""
        methods = [d for d in self.dimensions if d.name == "method"]
        starts: list[Point] = [{"method": value} for d in methods for value in d.domain.grid(count)] or [{}]
        return [
            {
                d.name: [start[d.name]] if d.name in start else d.domain.grid(count)
                for d in self.dimensions
                if d.applies(start)
            }
            for start in starts
        ]

    def __str__(self) -> str:
        return "; ".join(map(str, self.dimensions))

    @property
    def sha256(self) -> str:
        """Of its text."""
        return hashlib.sha256(str(self).encode()).hexdigest()


def read(
    items: Sequence[str] | Mapping[str, object], options: Mapping[str, Collection[str]], method: str = "linear"
) -> Space:
    """A space from `NAME=DOMAIN` texts (or a mapping), given the options that each method has.

    `method` is that of all points where there is no dimension of that name. Raises BadOption where no method searched
    has the setting, or one would have it twice.
    """
    texts = items if isinstance(items, Mapping) else pairs(items, "--space scale=0.3..2")
    domains = {name.strip(): parse(str(text)) for name, text in texts.items()}
    if not domains:
        raise BadOption("There is nothing to search.", hint="--space method=ties,tsv --space scale=0.3..2")
    methods = _methods(domains["method"], options) if "method" in domains else [method]
    ordered = sorted(domains, key=lambda name: name != "method")
    made = tuple(_dimension(name, domains[name], methods, options) for name in ordered)
    for one, other in itertools.combinations(made, 2):
        if one.name == other.name and (one.methods is None or other.methods is None or one.methods & other.methods):
            raise BadOption(f"{one.name} is given twice for one method.", where=f"{one}; {other}")
    return Space(made)


def _methods(domain: Domain, options: Mapping[str, Collection[str]]) -> list[str]:
    if not isinstance(domain, Choice):
        raise BadOption(f"method={domain} is no list of methods.", hint="method=ties,tsv,linear")
    for name in map(str, domain.values):
        if name not in options:
            raise BadOption(f"There is no method {name!r} to search.", hint=", ".join(near(name, options)))
    return [str(value) for value in domain.values]


def _dimension(name: str, domain: Domain, methods: Sequence[str], options: Mapping[str, Collection[str]]) -> Dimension:
    if name in COMMON or name.startswith(WEIGHT):
        texts = [v for v in domain.values if isinstance(v, str)] if isinstance(domain, Choice) else []
        if texts and name not in ("method", "rank"):
            raise BadOption(f"{name}={texts[0]} is no number.", hint=f"{name}=0.5,1 or {name}=0.3..2")
        return Dimension(name, domain)
    method, dot, option = name.rpartition(".")
    option = option.replace("-", "_")
    asked = [method] if dot else methods
    having = frozenset(one for one in asked if one in methods and option in options.get(one, ()))
    if not having:
        known = {*COMMON, *(option for one in methods for option in options.get(one, ()))}
        others = [one for one in options if option in options[one] and option not in known]
        hint = f"--space method={','.join(others)}" if others else ", ".join(near(option, known))
        raise BadOption(f"None of the methods has {name!r}.", where=", ".join(methods), hint=hint)
    # A single method is in no point's `method`, where that is not searched.
    return Dimension(option, domain, None if len(methods) == len(having) == 1 else having)
