"""The units of several updates as they are stored, side by side in float64, with nothing folded in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from loramerge.core.arrays import exact, namespace, numbers, zeros
from loramerge.core.updates import Updates
from loramerge.linalg.units import total_bias

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


CANCELS = 2.0**-12
"""Units whose sum is so small a share of its squared lengths together cancel: twelve of 52 bits are gone."""


@dataclass(frozen=True)
class Stored:
    """N units in float64: Σ_j scale_j b_j a_j, with b (out, N), a (N, in), `scale` (N,); the sum of their biases.

    `ranks` says how many units each update has. A single update in float64 is not copied.
    """

    b: Tensor
    a: Tensor
    scale: Tensor
    bias: Tensor | None
    ranks: tuple[int, ...]

    @property
    def signs(self) -> Tensor:
        """(N,) the signs of the scales, 0 for 0."""
        return namespace(self.scale).sign(self.scale)  # type: ignore[no-any-return]

    @cached_property
    def grams(self) -> tuple[Tensor, Tensor]:
        """bᵀ b and a aᵀ, (N, N) each."""
        return self.b.T @ self.b, self.a @ self.a.T

    def norms(self) -> Norms:
        """Exact Frobenius norms, from the Grams; nothing where those would be larger than the matrix itself."""
        if len(self.scale) >= min(len(self.b), self.a.shape[1]):
            return UNKNOWN
        products = self.grams[0] * self.grams[1] * self.scale * self.scale[:, None]
        ends = list(accumulate(self.ranks))
        parts = [products[at - rank : at, at - rank : at] for at, rank in zip(ends, self.ranks, strict=True)]
        return Norms(root_of_sum(products), tuple(root_of_sum(part) for part in parts))


@dataclass(frozen=True, slots=True)
class Norms:
    """‖Σ ΔWᵢ‖ and each ‖ΔWᵢ‖, as far as they came out of other work; what is None has to be measured."""

    total: float | None = None
    each: tuple[float | None, ...] = ()


UNKNOWN = Norms()
"""Nothing is known of any."""


def root_of_sum(products: Tensor) -> float | None:
    """The norm of an update whose units have these inner products with each other; None where they cancel.

    The sum is off by eps of the largest it could be, and where units cancel that is much of it.
    """
    xp = namespace(products)
    square = float(products.sum())
    largest = float(xp.sqrt(abs(products.diagonal())).sum())
    return math.sqrt(square) if square > CANCELS * largest * largest else None


def stored(deltas: Sequence[LowRank]) -> Stored:
    """All units of some updates. Raises ShapeMismatch where their (out, in) differ."""
    flat = [_plain(delta) for delta in Updates.of(deltas)]
    b, a = _side_by_side([delta.b for delta in flat], 1), _side_by_side([delta.a for delta in flat], 0)
    scale = numbers([delta.scale for delta in flat for _ in range(delta.rank)], b)
    return Stored(b, a, scale, total_bias(flat), tuple(delta.rank for delta in flat))


def _side_by_side(parts: Sequence[Tensor], axis: int) -> Tensor:
    """In float64; of one type they are first copied and then converted, twice as fast."""
    xp = namespace(parts[0])
    if len(parts) == 1:
        return exact(parts[0])
    if len({part.dtype for part in parts}) == 1:
        return exact(xp.concatenate(list(parts), axis))
    return xp.concatenate([exact(part) for part in parts], axis)  # type: ignore[no-any-return]


def blocks(updates: Updates, limit: int) -> Iterator[Stored]:
    """The units of all updates in turn, at most `limit` (or one update's) at once, in memory that is used again."""
    groups = _groups(updates.ranks, limit)
    width, buffers = max(map(sum, groups)), None
    loads = iter(updates)
    for ranks in groups:
        at, biased = 0, []
        for delta in islice(loads, len(ranks)):
            flat = _plain(delta)
            if buffers is None:
                (out, in_), like = updates.shape, numbers([], flat.b)
                buffers = zeros((out, width), like), zeros((width, in_), like), zeros((width,), like)
            units = slice(at, at + flat.rank)
            buffers[0][:, units] = flat.b
            buffers[1][units] = flat.a
            buffers[2][units] = flat.scale
            biased += [] if flat.bias is None else [flat]
            at = units.stop
            del delta, flat  # before the next is loaded
        assert buffers is not None
        yield Stored(buffers[0][:, :at], buffers[1][:at], buffers[2][:at], total_bias(biased), tuple(ranks))


def _plain(delta: LowRank) -> LowRank:
    return delta if delta.mid is None else delta.exact().plain()


def _groups(ranks: Sequence[int], limit: int) -> list[list[int]]:
    """Ranks in order, in groups of at most `limit` together; a larger one stands alone."""
    groups: list[list[int]] = []
    for rank in ranks:
        if not groups or sum(groups[-1]) + rank > limit:
            groups.append([])
        groups[-1].append(rank)
    return groups
