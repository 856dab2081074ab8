"""Random: each setting is drawn by itself, every value of it equally likely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loramerge.search.samplers._sampler import Sampler
from loramerge.search.space import Point, Space


class Random:
    """Draws from the unit cube, and learns nothing."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._generator = np.random.default_rng(seed)

    def ask(self, count: int) -> list[Point]:
        """As many as are wanted, without end."""
        return [self._space.point(row) for row in self._generator.random((count, len(self._space.dimensions))).tolist()]

    def tell(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """Nothing follows from it."""


SAMPLER = Sampler(Random)
