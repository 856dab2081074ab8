"""svd: the weighted sum at a rank, by singular value decomposition. Another name of `linear`.

    ΔW = the best approximation of Σ wᵢ ΔWᵢ of the rank that `--rank` names

Elsewhere a method of this name forms ΔW and decomposes it; here every method's result is cut to its rank
that way, from the factors, so nothing is left to do. Weights are 1/n each unless said.

Gauge: depends on the updates alone. Cost: O((out + in) N² + N³) for N = Σ rᵢ below min(out, in).

Source: Eckart & Young 1936, https://doi.org/10.1007/BF02288367.
"""

from __future__ import annotations

from loramerge.methods._method import Method
from loramerge.methods._weighing import NoOptions, as_given

METHOD = Method(as_given, NoOptions, source="https://doi.org/10.1007/BF02288367", on="coefficients", copies=0)
