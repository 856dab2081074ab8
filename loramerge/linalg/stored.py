"""The units of several updates as they are stored, side by side in float64, with nothing folded in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import TYPE_CHECKING

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

    `ranks` says how many units each update has. The memory is the holder's to write into.
    """

    b: Tensor
    a: Tensor
    scale: Tensor
    bias: Tensor | None
    ranks: tuple[int, ...]

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
    square = float(products.sum())
    largest = float(products.diagonal().clamp(min=0).sqrt().sum())
    return math.sqrt(square) if square > CANCELS * largest * largest else None


def stored(deltas: Sequence[LowRank]) -> Stored:
    """All units of some updates. Raises ShapeMismatch where their (out, in) differ."""
    import torch

    flat = [_plain(delta) for delta in Updates.of(deltas)]
    ranks = tuple(delta.rank for delta in flat)
    # Side by side in the type they are stored in, and then converted in one go: twice as fast.
    b, a = torch.cat([delta.b for delta in flat], dim=1), torch.cat([delta.a for delta in flat])
    scale = b.new_tensor([delta.scale for delta in flat], dtype=torch.float64)
    scale = scale.repeat_interleave(torch.tensor(ranks, device=b.device))
    return Stored(b.to(torch.float64), a.to(torch.float64), scale, total_bias(flat), ranks)


def blocks(updates: Updates, limit: int) -> Iterator[Stored]:
    """The units of all updates in turn, at most `limit` (or one update's) at once, in memory that is used again."""
    import torch

    groups = _groups(updates.ranks, limit)
    width, buffers = max(map(sum, groups)), None
    loads = iter(updates)
    for ranks in groups:
        at, biased = 0, []
        for delta in islice(loads, len(ranks)):
            flat = _plain(delta)
            if buffers is None:
                (out, in_), new = updates.shape, torch.zeros((), dtype=torch.float64, device=flat.b.device).new_empty
                buffers = new(out, width), new(width, in_), new(width)
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
    import torch

    return delta if delta.mid is None else delta.to(dtype=torch.float64).plain()


def _groups(ranks: Sequence[int], limit: int) -> list[list[int]]:
    """Ranks in order, in groups of at most `limit` together; a larger one stands alone."""
    groups: list[list[int]] = []
    for rank in ranks:
        if not groups or sum(groups[-1]) + rank > limit:
            groups.append([])
        groups[-1].append(rank)
    return groups
