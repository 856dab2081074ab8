"""What methods share that work on A and B by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Halves:
    """n updates' factors in float64, beside each other: `a` (n, r, in) and `b` (n, out, r), r the largest rank.

    Smaller ranks are padded with zeros. What is left of the scales, `scales` (n,), is theirs over `scale`, the
    first one's: equal scales leave ones, and nothing is rounded.
    """

    a: Tensor
    b: Tensor
    scales: Tensor
    scale: float


def halves(updates: Sequence[LowRank]) -> Halves:
    """The factors of some updates of one shape, at least one of them, none with a scale of zero."""
    import torch
    from torch.nn.functional import pad

    parts = [update.to(dtype=torch.float64).plain() for update in updates]
    rank = max(part.rank for part in parts)
    scale = parts[0].scale
    return Halves(
        a=torch.stack([pad(part.a, (0, 0, 0, rank - part.rank)) for part in parts]),
        b=torch.stack([pad(part.b, (0, rank - part.rank)) for part in parts]),
        scales=parts[0].a.new_tensor([part.scale / scale for part in parts]),
        scale=scale,
    )
