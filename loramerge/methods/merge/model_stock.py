"""model-stock: the mean, drawn back to the base the more the adapters disagree.

    ΔW = t · Σ wᵢ ΔWᵢ,   t = n c / (1 + (n − 1) c)

c is the mean cosine of all pairs of sign(wᵢ) ΔWᵢ, per module, n how many there are; updates of zero are
left out of both. Adapters that agree (c = 1) give the mean, orthogonal ones (c = 0) nothing: what
they do not share is taken for noise of training. So it suits adapters of one task, and cuts those of
different tasks to almost nothing. Weights are 1/n each unless said. Where a module has one update, t = 1.

What differs from the publication: it gives the formula for one angle; the mean of the pairs' cosines is
mergekit's choice too. A negative mean cosine gives t = 0; the formula would turn the result round, and is
not bounded. Angles are per module, not per layer.

Gauge: depends on the updates alone. Cost: O((out + in) N²), N = Σ rᵢ, and that of the truncation.

Source: Jang et al. 2024 (ECCV 2024), https://arxiv.org/abs/2403.19522
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loramerge.methods import _sphere
from loramerge.methods._method import Context, Method
from loramerge.methods._weighing import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def model_stock(gram: Callable[[], Tensor], options: NoOptions, context: Context) -> Sequence[float]:
    """t · wᵢ."""
    t = ratio(_sphere.points(gram(), context.weights).cosines)
    return [t * weight for weight in context.weights]


def ratio(cosines: Tensor) -> float:
    """t from the cosines of all pairs, (n, n)."""
    n = len(cosines)
    if n < 2:
        return 1.0
    c = float(cosines.triu(1).sum()) / (n * (n - 1) / 2)
    return n * c / (1 + (n - 1) * c) if c > 0 else 0.0


METHOD = Method(
    model_stock,
    NoOptions,
    source="https://arxiv.org/abs/2403.19522",
    on="coefficients",
    least=2,
    breaks={"linearity": "a weight's sign turns its update, and the angles with it"},
)
