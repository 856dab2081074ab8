"""cat: all rank-one units of all inputs side by side. Exact, and nothing is cut.

    B = [B₁ … Bₙ],   A = [A₁; …; Aₙ],   so that  B A = Σ wᵢ ΔWᵢ

Each unit carries √|wᵢsᵢ| in both halves and the sign in B, and is then balanced (|a_j| = |b_j|), which
changes no product and serves half precision. The rank is Σ rᵢ whatever `--rank` says; weights are 1
unless said, so this is the sum. LoRA's own biases are summed alike: Σ wᵢ sᵢ biasᵢ.

Gauge: the update depends on the updates alone; which units it is made of are the inputs' own.
Cost: none but copying, O((out + in) Σ rᵢ) memory.

Source: LoRA Soups, Prabhakar et al. 2024, https://arxiv.org/abs/2410.13025, with weights given instead
of learnt; the same identity is LoRA-LEGO's "concatenation is summation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """None: there is nothing to choose but weights."""


def concatenate(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """Σ wᵢ ΔWᵢ of rank Σ rᵢ, units balanced, in float64."""
    from loramerge.core.arrays import lengths
    from loramerge.core.lowrank import LowRank
    from loramerge.core.updates import Updates
    from loramerge.linalg.stored import stored
    from loramerge.linalg.units import balance

    units = stored(Updates.of(updates).weighted(context.weights))
    size = abs(units.scale) ** 0.5
    to_a, to_b = (factor * size for factor in balance(lengths(units.a, 1), lengths(units.b, 0)))
    balanced = LowRank(b=units.b * (to_b * units.signs), a=units.a * to_a[:, None], bias=units.bias)
    return Outcome([balanced], weights=context.weights, norms=units.norms())


METHOD = Method(
    concatenate,
    Options,
    source="https://arxiv.org/abs/2410.13025",
    rank="own",
    arrays=True,
    weights="sum",
    breaks={"idempotence": "it sums: n copies are n times the update, unless weights say otherwise"},
)
