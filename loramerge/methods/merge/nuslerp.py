"""nuslerp: spherical interpolation whose place on the arc comes from the weights, for each row, column or the whole.

    t = w₂ / (w₁ + w₂),   x and y the same row (column, or the whole) of ΔW₁ and ΔW₂, θ the angle between them
    result = sin((1−t)θ)/sin θ · x  +  sin(tθ)/sin θ · y

The angle is that of directions and the vectors keep their lengths, as mergekit has it. Inner products of rows
come from the factors: row i of ΔW₁ times row i of ΔW₂ is bᵢ (A₁A₂ᵀ) bᵢ'ᵀ; so each row of B (or column of A) is
multiplied by its own two numbers, and the result is exact and has rank r₁ + r₂ before the cut.

Options
    by   whole: one angle (mergekit's `nuslerp_flatten`). row: one for each output. column: one for each input

Where sin θ < 1e-5 (mergekit: 1e-8) the result is (1−t) x + t y: the same direction, or opposite ones. A row of
zeros is at a right angle to every other, as in mergekit. Weights that sum to zero mean t = 1/2. Their size does
not matter otherwise: `--scale` multiplies. LoRA's own biases are weighed by 1 − t and t.

Gauge: depends on the updates alone. Cost: O((out + in) r₁ r₂) and that of the truncation.

Source: mergekit's `nuslerp` on task vectors, https://github.com/arcee-ai/mergekit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank

_STRAIGHT = 1e-5
"""sin θ up to which arc and chord differ by less than 1e-10 of their length."""


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    by: Literal["whole", "row", "column"] = "whole"


def nuslerp(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """Both updates with each row (column) multiplied by its share of the arc, in float64."""
    import torch

    t = place(context.weights)
    parts = [update.to(dtype=torch.float64).folded() for update in updates]
    if options.by == "column":
        x, y = coefficients([replace(part, b=part.a.T, a=part.b.T, bias=None) for part in parts], t, whole=False)
        turned = [replace(part, a=part.a * c) for part, c in zip(parts, (x, y), strict=True)]
    else:
        x, y = coefficients(parts, t, whole=options.by == "whole")
        turned = [replace(part, b=part.b * c[:, None]) for part, c in zip(parts, (x, y), strict=True)]
    shares = zip(turned, (1 - t, t), strict=True)
    return Outcome([replace(part, bias=None if part.bias is None else part.bias * share) for part, share in shares])


def place(weights: Sequence[float]) -> float:
    """The t that two weights stand for."""
    first, second = weights
    return second / (first + second) if first + second else 0.5


def coefficients(parts: Sequence[LowRank], t: float, *, whole: bool) -> tuple[Tensor, Tensor]:
    """(out,) twice: what the rows of two updates are multiplied by."""
    import torch

    xx, xy, yy = (_products(parts[i], parts[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    if whole:
        xx, xy, yy = (rows.sum().expand_as(rows) for rows in (xx, xy, yy))
    size = (xx.clamp(min=0) * yy.clamp(min=0)).sqrt()
    theta = torch.where(size > 0, xy / size.where(size > 0, 1.0), 0.0).clamp(-1, 1).acos()
    sine = theta.sin()
    straight = sine < _STRAIGHT
    below = sine.where(~straight, 1.0)
    x = torch.where(straight, 1 - t, ((1 - t) * theta).sin() / below)
    return x, torch.where(straight, t, (t * theta).sin() / below)


def _products(x: LowRank, y: LowRank) -> Tensor:
    """(out,) the inner product of each row of X with the same row of Y."""
    found: Tensor = ((x.b @ (x.a @ y.a.T)) * y.b).sum(1)
    return found


METHOD = Method(
    nuslerp,
    Options,
    source="https://github.com/arcee-ai/mergekit",
    least=2,
    most=2,
    ordered=True,
    shares=lambda options, weights: (1 - place(weights), place(weights)),
    breaks={"linearity": "weights say where on the arc, not how much"},
)
