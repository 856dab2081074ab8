"""analogy: A − B + C of exactly three adapters, in that order.

    ΔW = w₁ ΔW₁ − w₂ ΔW₂ + w₃ ΔW₃,   wᵢ = 1 unless said

What A has over B, added to C: a task learnt on one domain, less that domain, plus another. The paper's
"A is to B as C is to D" is τ_C + (τ_B − τ_A); written in this order it is `B A C`. An adapter that lacks
a module counts as zero there. Biases are added alike, and what else is averaged (`--extras`) takes the
same signs.

Gauge: depends on the updates alone. Cost: that of the truncation.

Source: task analogies, Ilharco et al. 2022, https://arxiv.org/abs/2212.04089, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loramerge.methods._method import Context, Method
from loramerge.methods._weighing import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def analogy(gram: Callable[[], Tensor], options: NoOptions, context: Context) -> Sequence[float]:
    """w₁, −w₂, w₃."""
    return shares(options, context.weights)


def shares(options: NoOptions, weights: Sequence[float]) -> Sequence[float]:
    """w₁, −w₂, w₃."""
    a, b, c = weights
    return a, -b, c


METHOD = Method(
    analogy,
    NoOptions,
    source="https://arxiv.org/abs/2212.04089",
    on="coefficients",
    copies=0,
    weights="sum",
    least=3,
    most=3,
    ordered=True,
    shares=shares,
    breaks={"permutation": "the second is taken away"},
)
