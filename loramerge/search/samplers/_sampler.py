"""What a sampler is: it says which points to try next, and is told how they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from loramerge.registry import Registry
from loramerge.search.space import Point, Space


class Search(Protocol):
    """One search under way. The same calls give the same points: so a search goes on by being gone through again."""

    def ask(self, count: int) -> list[Point]:
        """The next points to try, at most so many; none where there are no more."""

    def tell(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """How those asked for did, in the order they came: more is better, NaN where it could not be said."""


@dataclass(frozen=True)
class Sampler:
    """`start`: a search of a space with a seed."""

    start: Callable[[Space, int], Search]


SAMPLERS: Registry[Sampler] = Registry("loramerge.search.samplers", "SAMPLER", "sampler")
