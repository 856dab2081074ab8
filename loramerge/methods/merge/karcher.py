"""karcher: the mean of directions on the sphere, at the mean of the norms.

    u* = argmin_{|u|=1} Σ |wᵢ| θ(u, uᵢ)²,   uᵢ = sign(wᵢ) ΔWᵢ/|ΔWᵢ|,   θ the angle
    ΔW = (Σ |wᵢ| |ΔWᵢ|) · u*

u* is found by averaging in the tangent space, from the normalised Σ |wᵢ| uᵢ on:

    u ← exp_u( Σ aᵢ log_u(uᵢ) ),   aᵢ = |wᵢ| / Σ |w|

All of it happens in the n coefficients of the uᵢ, with their n×n inner products: no update is formed. Of
two adapters with weights 1−t and t it is `slerp` at t with lengths=linear. Weights are 1/n each unless said.
A negative weight means −ΔWᵢ. An update of zero has no direction and changes nothing. Where Σ |wᵢ| uᵢ
vanishes (two opposite adapters) no direction is the mean, and the result is Σ wᵢ ΔWᵢ.

Options
    iterations   at most; the mean of directions within a right angle takes some ten
    tolerance    the step at which it ends

What differs from mergekit's `karcher` (10 iterations, tolerance 1e-5): weights can be given; opposite
inputs do not fall back on the first of them, so the order never matters.

Gauge: depends on the updates alone. Cost: O((out + in) N²), N = Σ rᵢ, and that of the truncation.

Source: Karcher 1977, https://doi.org/10.1002/cpa.3160300502; mergekit's `karcher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import TYPE_CHECKING

from loramerge.errors import BadOption
from loramerge.methods import _sphere
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    iterations: int = 100
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise BadOption(f"iterations is {self.iterations}, below 0.", hint="100")
        if not 0 <= self.tolerance < float("inf"):
            raise BadOption(f"tolerance is {self.tolerance}, not a number from 0 on.", hint="1e-12")


def karcher(gram: Callable[[], Tensor], options: Options, context: Context) -> Sequence[float]:
    """The coefficients of the updates, by the module's formula."""
    points = _sphere.points(gram(), context.weights)
    mean = points.mean()
    if mean is None:
        return context.weights
    for _ in range(options.iterations):
        step = _tangent(mean, points)
        size = float(step @ points.cosines @ step) ** 0.5
        if not size > options.tolerance:
            break
        mean = cos(size) * mean + sin(size) / size * step
        mean = mean / (mean @ points.cosines @ mean).sqrt()
    return points.at(mean)


def _tangent(mean: Tensor, points: _sphere.Points) -> Tensor:
    """(k,) Σ aᵢ log_u(uᵢ), log_u(v) being θ/sin θ · (v − cos θ u)."""
    cosines = (points.cosines @ mean).clamp(-1, 1)
    angles = cosines.acos()
    sines = angles.sin()
    pull = points.shares * (angles / sines).where(sines > 1e-9, 1.0)
    step: Tensor = pull - (pull @ cosines) * mean
    return step


METHOD = Method(
    karcher,
    Options,
    source="https://doi.org/10.1002/cpa.3160300502",
    on="coefficients",
    breaks={"linearity": "directions and norms are averaged apart"},
)
