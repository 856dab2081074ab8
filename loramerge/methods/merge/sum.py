"""sum: the exact sum of the updates.

    ΔW = Σ wᵢ ΔWᵢ,   wᵢ = 1 unless said

The same as `linear`, but for what an adapter counts for when nobody says: all of it, not 1/n. `cat` keeps
the sum whole; here it is cut to the rank asked for afterwards, optimally. Biases are summed alike.

Gauge: depends on the updates alone. Cost: that of the truncation.

Source: task arithmetic, Ilharco et al. 2022, https://arxiv.org/abs/2212.04089, with λ = 1.
"""

from __future__ import annotations

from loramerge.methods._method import Method
from loramerge.methods._weighing import NoOptions, as_given

METHOD = Method(
    as_given,
    NoOptions,
    source="https://arxiv.org/abs/2212.04089",
    on="coefficients",
    copies=0,
    weights="sum",
    breaks={"idempotence": "it sums: n copies are n times the update, unless weights say otherwise"},
)
