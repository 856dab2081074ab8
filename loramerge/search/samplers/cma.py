"""CMA-ES: a normal distribution in the unit cube that moves and stretches towards what did well.

It begins in the middle of every range (so weights of -1.5..1.5 begin at 0) with a third of its width. Choices and
whole numbers are cut into parts of equal length, and a point is told as the middle of its part: for a space of
choices only, `tpe` suits better. A generation is as large as the first batch asked for.

Hansen 2016, https://arxiv.org/abs/1604.00772; the library `cmaes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from loramerge.errors import BadOption, MissingExtra
from loramerge.search.samplers._sampler import Sampler
from loramerge.search.space import Point, Space

_STEP = 1 / 3


class Cma:
    """A CMA-ES that is told in whole generations."""

    def __init__(self, space: Space, seed: int) -> None:
        if len(space.dimensions) < 2:
            raise BadOption("CMA-ES needs two settings or more to search.", where=str(space), hint="grid or tpe")
        self._space = space
        self._seed = seed
        self._library = _library()
        self._found: Any = None
        self._told: list[tuple[Any, float]] = []

    def ask(self, count: int) -> list[Point]:
        """Draws of the generation under way."""
        if self._found is None:
            self._found = self._begun(max(count, 4))
        return [self._space.point(self._found.ask().tolist()) for _ in range(count)]

    def tell(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """A whole generation moves the distribution; what is over waits."""
        for point, value in zip(points, values, strict=True):
            self._told.append((np.array(self._space.cube(point)), math.inf if math.isnan(value) else -value))
        size = self._found.population_size
        while len(self._told) >= size:
            self._found.tell(self._told[:size])
            del self._told[:size]

    def _begun(self, population: int) -> Any:
        size = len(self._space.dimensions)
        bounds = np.tile([0.0, 1.0], (size, 1))
        return self._library.CMA(np.full(size, 0.5), _STEP, bounds=bounds, seed=self._seed, population_size=population)


def _library() -> Any:
    try:
        import cmaes
    except ImportError:
        raise MissingExtra("The sampler cma needs cmaes.", hint='pip install "loramerge[search]"') from None
    return cmaes


SAMPLER = Sampler(Cma)
