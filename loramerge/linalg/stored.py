"""The units of several updates as they are stored, side by side in float64: copied once, and nothing folded in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from loramerge.core.updates import Updates
from loramerge.linalg.units import total_bias

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True, slots=True)
class Stored:
    """N units in float64: Σ_j scale_j b_j a_j, with b (out, N), a (N, in), `scale` (N,); the sum of their biases.

    The memory is the holder's to write into.
    """

    b: Tensor
    a: Tensor
    scale: Tensor
    bias: Tensor | None


def stored(deltas: Sequence[LowRank]) -> Stored:
    """All units of some updates. Raises ShapeMismatch where their (out, in) differ."""
    updates = Updates.of(deltas)
    (units,) = blocks(updates, sum(updates.ranks))
    return units


def blocks(updates: Updates, limit: int) -> Iterator[Stored]:
    """The units of all updates in turn, at most `limit` (or one update's) at once, in memory that is used again."""
    import torch

    groups = _groups(updates.ranks, limit)
    width, buffers = max(map(sum, groups)), None
    loads = iter(updates)
    for ranks in groups:
        at, biased = 0, []
        for delta in islice(loads, len(ranks)):
            flat = delta if delta.mid is None else delta.to(dtype=torch.float64).plain()
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
        yield Stored(buffers[0][:, :at], buffers[1][:at], buffers[2][:at], total_bias(biased))


def _groups(ranks: Sequence[int], limit: int) -> list[list[int]]:
    """Ranks in order, in groups of at most `limit` together; a larger one stands alone."""
    groups: list[list[int]] = []
    for rank in ranks:
        if not groups or sum(groups[-1]) + rank > limit:
            groups.append([])
        groups[-1].append(rank)
    return groups
