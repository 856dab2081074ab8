"""Updates as points of a sphere, all from their inner products.

A weight's size says how much a point counts, its sign which of ΔW and −ΔW is meant. An update of zero has
no direction and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Directions uₖ = ±ΔWₖ / ‖ΔWₖ‖ of those of n updates that have one.

    `shares` (k,) are their |w| over the sum of all, `cosines` (k, k) the inner products of directions,
    `length` is Σ |wᵢ| ‖ΔWᵢ‖; `places` and `lengths` (k,) lead back to the updates, the sign being in the length.
    """

    shares: Tensor
    cosines: Tensor
    length: float
    places: Tensor
    lengths: Tensor
    count: int

    def at(self, direction: Tensor) -> list[float]:
        """The n coefficients of length · Σ directionₖ uₖ."""
        found = self.lengths.new_zeros(self.count)
        found[self.places] = self.length * direction / self.lengths
        return [float(number) for number in found]

    def mean(self) -> Tensor | None:
        """(k,) the normalised Σ shareₖ uₖ; None where that sum is zero: then no direction is the mean."""
        squared = float(self.shares @ self.cosines @ self.shares) if len(self.shares) else 0.0
        return self.shares / squared**0.5 if squared > _NOTHING else None


_NOTHING = 1e-14
"""‖Σ share u‖² up to which directions cancel: rounding of inner products leaves some 1e-16."""


def points(gram: Tensor, weights: Sequence[float]) -> Points:
    """The points that updates with these inner products (n, n) and weights stand for."""
    import torch

    given = torch.tensor(weights, dtype=gram.dtype, device=gram.device)
    norms = gram.diagonal().clamp(min=0).sqrt()
    places = ((norms > 0) & (given != 0)).nonzero().flatten()
    sizes = given[places].abs()
    lengths = norms[places] * given[places].sign()
    return Points(
        shares=sizes / sizes.sum(),
        cosines=(gram[places][:, places] / lengths[:, None] / lengths).clamp(-1, 1),
        length=float(sizes @ norms[places]),
        places=places,
        lengths=lengths,
        count=len(norms),
    )
