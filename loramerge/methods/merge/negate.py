"""negate: the sum of the updates with its sign turned. Of one adapter: −ΔW.

    ΔW = −Σ wᵢ ΔWᵢ,   wᵢ = 1 unless said

Added to the base it takes away what the adapters had brought. Factors are kept where the rank allows, so
negating twice gives the adapter back, its numbers unrounded. Biases are negated alike.

Gauge: depends on the updates alone. Cost: that of the truncation.

Source: forgetting by negation, Ilharco et al. 2022, https://arxiv.org/abs/2212.04089, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loramerge.methods._method import Context, Method
from loramerge.methods._weighing import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def negate(gram: Callable[[], Tensor], options: NoOptions, context: Context) -> Sequence[float]:
    """−wᵢ."""
    return [-weight for weight in context.weights]


METHOD = Method(
    negate,
    NoOptions,
    source="https://arxiv.org/abs/2212.04089",
    on="coefficients",
    copies=0,
    weights="sum",
    breaks={"identity": "it turns the sign", "idempotence": "it turns the sign, and sums"},
)
