"""The one numeric type: a low-rank update kept as its factors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from loramerge.core.arrays import exact, namespace, tensor
from loramerge.errors import ShapeMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, device, dtype


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """ΔW = scale · b @ (mid @) a, the update one LoRA module adds to one weight.

    The factors are torch's tensors, or numpy arrays where that is enough (see `core.arrays`); `to` gives tensors
    in any case.

    Shapes: b (out, r), a (r, in), mid (r, r') with a (r', in) where there is one (a Tucker core, a
    diagonal, a learnt r×r matrix). `bias` (out,) is LoRA's own bias update, also times `scale`.
    `scale` is alpha/r (or alpha/√r), kept apart from the factors so that reading and writing an
    adapter gives back the same bytes. Convolutions are flattened: in = in_channels · kernel.

    The factors are not unique: (b g, g⁻¹ a) is the same update for any invertible g. Code that
    depends on ΔW alone is called gauge-invariant; code that does not must say so.

    Only exact algebra lives here; anything that approximates is in `loramerge.linalg`.
    """

    b: Tensor
    a: Tensor
    scale: float = 1.0
    mid: Tensor | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        chain = [part for part in (self.b, self.mid, self.a) if part is not None]
        if any(part.ndim != 2 for part in chain) or any(x.shape[1] != y.shape[0] for x, y in pairwise(chain)):
            shapes = " and ".join(str(tuple(part.shape)) for part in chain)
            raise ShapeMismatch(f"Factors {shapes} do not multiply.")
        if self.bias is not None and self.bias.shape != self.b.shape[:1]:
            raise ShapeMismatch(f"A bias {tuple(self.bias.shape)} does not go with a factor {tuple(self.b.shape)}.")

    @property
    def rank(self) -> int:
        """The number of rank-one units the factors hold (an upper bound of the update's rank)."""
        return int(self.b.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the update."""
        return int(self.b.shape[0]), int(self.a.shape[1])

    def to(self, *, dtype: dtype | None = None, device: device | str | None = None) -> LowRank:
        """The same update with torch's tensors of another dtype or on another device."""
        mid, bias = (None if t is None else tensor(t).to(dtype=dtype, device=device) for t in (self.mid, self.bias))
        b, a = (tensor(t).to(dtype=dtype, device=device) for t in (self.b, self.a))
        return LowRank(b, a, self.scale, mid, bias)

    def exact(self) -> LowRank:
        """The same update in float64."""
        mid, bias = (None if part is None else exact(part) for part in (self.mid, self.bias))
        return LowRank(exact(self.b), exact(self.a), self.scale, mid, bias)

    def times(self, factor: float) -> LowRank:
        """factor · ΔW (and its bias), exactly: the factor joins the scale."""
        return LowRank(self.b, self.a, self.scale * factor, self.mid, self.bias)

    def plain(self) -> LowRank:
        """The same update without a middle factor: multiplied into the side that leaves the smaller rank."""
        if self.mid is None:
            return self
        if self.mid.shape[0] <= self.mid.shape[1]:
            return replace(self, a=self.mid @ self.a, mid=None)
        return replace(self, b=self.b @ self.mid, mid=None)

    def folded(self) -> LowRank:
        """The same update with scale 1: √|scale| in both halves, the sign in b."""
        if self.scale == 1.0 and self.mid is None:
            return self
        flat = self.plain()
        root = abs(flat.scale) ** 0.5
        sign = -1.0 if flat.scale < 0 else 1.0
        return LowRank(
            b=flat.b * (root * sign),
            a=flat.a * root,
            bias=None if flat.bias is None else flat.bias * flat.scale,
        )

    def dense(self) -> Tensor:
        """ΔW as an (out, in) matrix. O(out · in) memory: for references and small modules only."""
        flat = self.plain()
        return (flat.b @ flat.a) * flat.scale


def cat(deltas: Sequence[LowRank]) -> LowRank:
    """Σ ΔWᵢ with all units of all updates side by side: exact, rank Σ rᵢ, no arithmetic but folding.

    Biases are added. Raises ShapeMismatch where the updates have different (out, in).
    """
    common_shape(deltas)
    parts = [delta.folded() for delta in deltas]
    if len(parts) == 1:
        return parts[0]
    xp = namespace(parts[0].b)
    biases = [part.bias for part in parts if part.bias is not None]
    return LowRank(
        b=xp.concatenate([part.b for part in parts], 1),
        a=xp.concatenate([part.a for part in parts], 0),
        bias=xp.stack(biases).sum(0) if biases else None,
    )


def common_shape(deltas: Sequence[LowRank]) -> tuple[int, int]:
    """The (out, in) of all of some updates; raises ShapeMismatch where there is more than one."""
    shapes = {delta.shape for delta in deltas}
    if len(shapes) != 1:
        raise ShapeMismatch(f"Updates of shapes {' and '.join(map(str, sorted(shapes)))} cannot be added.")
    return shapes.pop()
