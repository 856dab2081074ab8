"""factorwise: the A's added, the B's added, and the two sums multiplied. What many tools call merging.

    A = Σ σᵢ √|wᵢsᵢ| Aᵢ,   B = Σ √|wᵢsᵢ| Bᵢ,   σᵢ = sign(wᵢsᵢ),   ΔW = B A

The product of sums is not the sum of products: beside Σ wᵢsᵢBᵢAᵢ it holds BᵢAⱼ for every two adapters,
which nobody trained. It makes sense for points of one training run, whose factors share a basis; for
others, take `linear`, which has no such terms.

Options
    formula   sqrt: as above, PEFT's `linear`, sign on A and all.
              plain: A = Σ wᵢAᵢ, B = Σ wᵢBᵢ, LoraHub's and federated averaging's; wᵢ goes into ΔWᵢ squared. The
              scales go √|sᵢ| into both halves, so that equal scales stay what they are

Ranks that differ are padded with zeros (PEFT refuses them): unit j meets the others' unit j, whatever they
hold. An adapter with B = 0 still brings its A; one with wᵢ = 0 brings nothing. Biases are added exactly,
Σ wᵢsᵢbiasᵢ. Weights are 1/n each unless said; n copies of one adapter give n times it by sqrt, itself by
plain. The midpoint of two adapters by plain differs from the mean of their updates by −(B₁−B₂)(A₁−A₂)/4.

Gauge: depends on how factors are written down: (BG, G⁻¹A) is the same update and another input.
Cost: O((out + in) Σ rᵢ), and that of the truncation.

Source: PEFT's `add_weighted_adapter`, combination_type "linear"; LoraHub, Huang et al. 2023,
https://arxiv.org/abs/2307.13269; FedIT, Zhang et al. 2023, https://arxiv.org/abs/2305.05644
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loramerge.methods import _factors
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    formula: Literal["sqrt", "plain"] = "sqrt"


def factorwise(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """One update of the largest rank, in float64."""
    from loramerge.core.lowrank import LowRank, common_shape
    from loramerge.linalg.units import nothing, total_bias

    weighed = [
        (update, weight) for update, weight in zip(updates, context.weights, strict=True) if weight * update.scale
    ]
    if not weighed:
        return Outcome([nothing(common_shape(updates))])
    parts = _factors.halves([update for update, _ in weighed])
    weights = parts.scales.new_tensor([weight for _, weight in weighed])
    numbers = (weights * parts.scales) if options.formula == "sqrt" else parts.scales
    left, right = numbers.abs().sqrt(), numbers.abs().sqrt() * numbers.sign()
    if options.formula == "plain":
        left, right = left * weights, right * weights
    b, a = (left[:, None, None] * parts.b).sum(0), (right[:, None, None] * parts.a).sum(0)
    bias = total_bias([update.times(weight / parts.scale) for update, weight in weighed])
    return Outcome([LowRank(b=b, a=a, scale=parts.scale, bias=bias)])


def shares(options: Options, weights: Sequence[float]) -> Sequence[float]:
    """The weights: with one of 1 and zeros it is that adapter."""
    return weights


METHOD = Method(
    factorwise,
    Options,
    source="https://arxiv.org/abs/2307.13269",
    shares=shares,
    breaks={
        "idempotence": "√(1/n) in both halves of n copies makes n times the update",
        "units": "unit j is added to the others' unit j",
        "gauge": "A and B are added as they are written down",
        "zero": "an adapter with B = 0 still brings its A, which meets the others' B",
        "linearity": "weights go into both halves, and products of adapters appear",
    },
)
