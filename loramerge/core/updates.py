"""Several updates of one module, loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import overload

from loramerge.core.lowrank import LowRank, common_shape


class Updates(Sequence[LowRank]):
    """A sequence of updates whose ranks and shape are known before any of them is loaded.

    Nothing is kept: an item is loaded each time it is asked for, so that a sum over thousands holds one
    at a time.
    """

    def __init__(self, loads: Sequence[Callable[[], LowRank]], ranks: Sequence[int], shape: tuple[int, int]) -> None:
        self._loads = loads
        self.ranks = tuple(ranks)
        self.shape = shape

    @classmethod
    def of(cls, deltas: Sequence[LowRank]) -> Updates:
        """These updates, which are loaded already. Raises ShapeMismatch where their (out, in) differ."""
        if isinstance(deltas, Updates):
            return deltas
        return cls([partial(_itself, delta) for delta in deltas], [d.rank for d in deltas], common_shape(deltas))

    def weighted(self, weights: Sequence[float]) -> Updates:
        """wᵢ · ΔWᵢ, still not loaded; what counts for nothing is left out, but the first where all do."""
        counted = [at for at, weight in enumerate(weights) if weight != 0] or [0]
        loads = [partial(_times, self._loads[at], weights[at]) for at in counted]
        return Updates(loads, [self.ranks[at] for at in counted], self.shape)

    def __len__(self) -> int:
        return len(self._loads)

    @overload
    def __getitem__(self, at: int) -> LowRank: ...

    @overload
    def __getitem__(self, at: slice) -> list[LowRank]: ...

    def __getitem__(self, at: int | slice) -> LowRank | list[LowRank]:
        return [load() for load in self._loads[at]] if isinstance(at, slice) else self._loads[at]()

    def __iter__(self) -> Iterator[LowRank]:
        return (load() for load in self._loads)


def _itself(delta: LowRank) -> LowRank:
    return delta


def _times(load: Callable[[], LowRank], weight: float) -> LowRank:
    return load().times(weight)
