"""slerp: a point of the arc from one adapter's direction to another's.

    with θ the angle between U = w₁ΔW₁ and V = w₂ΔW₂ as vectors,  wᵢ = 1 unless said,
    ΔW = N(t) · ( sin((1−t)θ)/sin θ · U/|U|  +  sin(tθ)/sin θ · V/|V| )
    N(t) = (1−t) |U| + t |V|

θ and the norms come from the 2×2 matrix of inner products of factors; the result is a weighted sum.

Options
    t        0 … 1
    lengths  linear: as above, the norm goes evenly from one to the other.
             raw: sin((1−t)θ)/sin θ · U + sin(tθ)/sin θ · V, as mergekit has it: the angle is that of the
             directions, but the vectors keep their lengths, so the longer one pulls the direction

Where sin θ < 1e-6 there is no arc to tell from the chord, or (opposite updates) no one arc: the result is
then (1−t) U + t V, which for opposite updates of one norm is zero at t = 0.5. An update of zero has no
direction: the same. (mergekit goes straight from |cos θ| > 0.9995 on.) At the ends the other adapter has
no part in the result, as in `interpolate`, which is the straight way. At t = 0.5 the order does not matter.
Biases take the updates' coefficients; what is averaged beside them (`--extras`) takes 1 − t and t.

Gauge: depends on the updates alone. Cost: O((out + in) r₁ r₂) and that of the truncation.

Source: Shoemake 1985, https://doi.org/10.1145/325334.325242; mergekit's `slerp` for tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import acos, sin
from typing import TYPE_CHECKING, Literal

from loramerge.methods import _weighing
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor

_STRAIGHT = 1e-6
"""sin θ up to which arc and chord differ by less than 1e-12 of their length."""


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    t: float = 0.5
    lengths: Literal["linear", "raw"] = "linear"

    def __post_init__(self) -> None:
        _weighing.check_between(self.t)


def slerp(gram: Callable[[], Tensor], options: Options, context: Context) -> Sequence[float]:
    """The coefficients of ΔW₁ and ΔW₂, by the module's formula."""
    t, (first, second) = options.t, context.weights
    (aa, ab), (_, bb) = gram().tolist()
    u, v = abs(first) * max(aa, 0.0) ** 0.5, abs(second) * max(bb, 0.0) ** 0.5
    if u == 0 or v == 0:
        return shares(options, context.weights)
    theta = acos(max(-1.0, min(1.0, first * second * ab / (u * v))))
    if sin(theta) < _STRAIGHT:
        return shares(options, context.weights)
    x, y = sin((1 - t) * theta) / sin(theta), sin(t * theta) / sin(theta)
    if options.lengths == "linear":
        norm = (1 - t) * u + t * v
        x, y = x * (norm / u), y * (norm / v)
    return x * first, y * second


def shares(options: Options, weights: Sequence[float]) -> Sequence[float]:
    """(1 − t) w₁, t w₂."""
    return _weighing.between(options.t, weights)


def label(options: Options) -> str:
    """The place on the way."""
    return f"{options.t:g}"


METHOD = Method(
    slerp,
    Options,
    source="https://doi.org/10.1145/325334.325242",
    on="coefficients",
    weights="sum",
    least=2,
    most=2,
    ordered=True,
    shares=shares,
    label=label,
    breaks={"linearity": "the angle turns with a weight's sign, and norms are averaged apart from directions"},
)
