"""multi-slerp: the normalised mean of directions, at the mean of the norms.

    ΔW = (Σ |wᵢ| |ΔWᵢ|) · m/|m|,   m = Σ |wᵢ| uᵢ,   uᵢ = sign(wᵢ) ΔWᵢ/|ΔWᵢ|

One adapter with a large norm does not outvote the others' directions, as it does in `linear`. Weights are
1/n each unless said; a negative one means −ΔWᵢ. An update of zero has no direction and changes nothing.
Where m vanishes (two opposite adapters) the result is Σ wᵢ ΔWᵢ.

mergekit's `multislerp` goes on from m to the tangent space there, averages the uᵢ projected on it and comes
back. That average is Σ aᵢ(uᵢ − ⟨uᵢ, m̂⟩m̂) = m − |m| m̂ = 0 for the m̂ it starts from, so the result is the
one above; what differs is that weights are normalised by Σ|w| and zeros are left out. With logarithms in
place of projections the step is not zero: that is `karcher`.

Gauge: depends on the updates alone. Cost: O((out + in) N²), N = Σ rᵢ, and that of the truncation.

Source: mergekit's `multislerp`, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loramerge.methods import _sphere
from loramerge.methods._method import Context, Method
from loramerge.methods._weighing import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def multi_slerp(gram: Callable[[], Tensor], options: NoOptions, context: Context) -> Sequence[float]:
    """The coefficients of the updates, by the module's formula."""
    points = _sphere.points(gram(), context.weights)
    mean = points.mean()
    return context.weights if mean is None else points.at(mean)


METHOD = Method(
    multi_slerp,
    NoOptions,
    source="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    on="coefficients",
    breaks={"linearity": "directions and norms are averaged apart"},
)
