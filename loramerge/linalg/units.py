"""Rank-one units: row j of a with column j of b. What an update is made of, side by side.

A unit (a, b) is the same product as (c·a, b/c) for any c ≠ 0, so what is done to units depends on
how they are written down. `balanced` settles |c|, `signed` its sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loramerge.core.arrays import exact, lengths, namespace, numbers
from loramerge.core.lowrank import LowRank

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Units:
    """N rank-one units in float64: `a` (N, in), `b` (N, out), and whose each is (`owner`, (N,) integers).

    Units are rows of both, so that what is computed for one does not depend on where it stands.
    """

    a: Tensor
    b: Tensor
    owner: Tensor

    def __len__(self) -> int:
        return int(self.a.shape[0])

    def take(self, index: Tensor) -> Units:
        """The units at these places (or where a mask is true), in that order."""
        return Units(self.a[index], self.b[index], self.owner[index])

    def sizes(self) -> Tensor:
        """(N,) the Frobenius norm |a||b| of each unit's product."""
        return lengths(self.a, 1) * lengths(self.b, 1)

    def balanced(self) -> Units:
        """The same products with |a| = |b|; a unit whose product is zero becomes zero in both halves."""
        to_a, to_b = balance(lengths(self.a, 1), lengths(self.b, 1))
        return replace(self, a=self.a * to_a[:, None], b=self.b * to_b[:, None])

    def signed(self) -> Units:
        """The same products, each with the largest entry of its `a` positive (the first of equals)."""
        top = self.a.gather(1, self.a.abs().argmax(1, keepdim=True))
        sign = (top < 0).to(self.a.dtype) * -2 + 1
        return replace(self, a=self.a * sign, b=self.b * sign)

    def normalized(self) -> Units:
        """Both halves of each unit at length one (products of zero stay zero)."""
        left, right = lengths(self.b, 1), lengths(self.a, 1)
        return replace(
            self,
            a=self.a / right.where(right > 0, 1.0)[:, None],
            b=self.b / left.where(left > 0, 1.0)[:, None],
        )

    def ordered(self) -> Units:
        """The same units in an order that depends on their numbers only: larger products first.

        Whatever order adapters and units came in, what is computed from here on is the same to the bit
        (units that are the same to the bit may swap owners).
        """
        import numpy as np
        import torch

        rows = torch.cat([self.sizes()[:, None], self.a, self.b], dim=1).cpu().numpy() + 0.0  # no -0.0
        # Big-endian bytes of numbers that are not negative compare as the numbers do: sizes come first.
        keys = np.ascontiguousarray(rows.astype(">f8")).view(f"V{8 * rows.shape[1]}").ravel()
        order = np.argsort(keys, kind="stable")[::-1].copy()
        return self.take(torch.from_numpy(order).to(self.a.device))

    def rows(self) -> Tensor:
        """(N, in + out) the features [a; b]."""
        import torch

        return torch.cat([self.a, self.b], dim=1)

    def gram(self, *, product: bool = False) -> Tensor:
        """(N, N) inner products of the [a; b], or of the products b aᵀ, which are never formed."""
        a, b = self.a @ self.a.T, self.b @ self.b.T
        return a * b if product else a + b

    def landmarked(self, count: int = 1024) -> Tensor:
        """(N, ≤ count) features whose inner products are about those of the b aᵀ (Nyström).

        Every ⌈N/count⌉-th unit is a landmark; exact on the landmarks.
        """
        import torch

        marks = self.take(torch.arange(0, len(self), -(-len(self) // count), device=self.a.device))
        values, vectors = torch.linalg.eigh(marks.gram(product=True))
        kept = values > values.max() * len(marks) * torch.finfo(values.dtype).eps
        to_marks = (self.a @ marks.a.T) * (self.b @ marks.b.T)
        features: Tensor = to_marks @ (vectors[:, kept] / values[kept].sqrt())
        return features

    def lowrank(self) -> LowRank:
        """The sum of all the units' products as one update."""
        return LowRank(b=self.b.T.contiguous(), a=self.a)


def pool(deltas: Sequence[LowRank]) -> Units:
    """All units of some updates of one shape, scales folded in (√|scale| in both halves, the sign in b)."""
    import torch

    parts = [delta.exact().folded() for delta in deltas]
    return Units(
        a=torch.cat([part.a for part in parts]).contiguous(),
        b=torch.cat([part.b.T for part in parts]).contiguous(),
        owner=torch.cat([torch.full((part.rank,), i, device=part.a.device) for i, part in enumerate(parts)]),
    )


def total_bias(deltas: Sequence[LowRank]) -> Tensor | None:
    """Σ scaleᵢ · biasᵢ in float64; None where no update has a bias."""
    parts = [exact(delta.bias) * delta.scale for delta in deltas if delta.bias is not None]
    return namespace(parts[0]).stack(parts).sum(0) if parts else None


def nothing(shape: tuple[int, int], like: Tensor | None = None) -> LowRank:
    """The update zero of that (out, in), in float64: one unit of zeros, since an update has a rank.

    A tensor on the CPU, or an array like another.
    """
    if like is None:
        import torch

        like = torch.empty(0)
    b, a = (numbers([0.0] * side, like) for side in shape)
    return LowRank(b=b[:, None], a=a[None])


def bounded(total: float) -> float:
    """The number; raises OverflowError where adding up its parts has left the range of float64."""
    if not math.isfinite(total):
        raise OverflowError
    return total


def balance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """What halves of these lengths are multiplied by to be of one length; 0 for both where the product is zero."""
    xp = namespace(a)
    alive = (a > 0) & (b > 0)
    ratio = xp.where(alive, b, 1.0) / xp.where(alive, a, 1.0)
    return xp.where(alive, xp.sqrt(ratio), 0.0), xp.where(alive, xp.sqrt(1 / ratio), 0.0)
