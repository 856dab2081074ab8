"""Grid: all combinations, five values of each range, in a drawn order.

In a drawn order, so that a budget that ends early has not seen one corner of the space only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loramerge.search.samplers._sampler import Sampler
from loramerge.search.space import Point, Space


class Grid:
    """Hands the points out, and learns nothing."""

    def __init__(self, space: Space, seed: int) -> None:
        points = space.grid()
        self._left = iter([points[i] for i in np.random.default_rng(seed).permutation(len(points))])

    def ask(self, count: int) -> list[Point]:
        """The next ones in the drawn order."""
        return [point for _, point in zip(range(count), self._left, strict=False)]

    def tell(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """Nothing follows from it."""


SAMPLER = Sampler(Grid)
