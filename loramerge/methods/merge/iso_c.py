"""Iso-C: the sum of the updates with all its singular values equal.

    Σ wᵢ ΔWᵢ = U S Vᵀ,    ΔW = s̄ · U Vᵀ,   s̄ the mean of the singular values kept

The sum is dominated by a few directions that some tasks happen to share; equal singular values give the
others their say.

Options
    k    directions kept, the first ones of the sum; as many as the task of largest rank has unless said

The directions kept all have the same weight, so cutting the result afterwards would leave an arbitrary choice
of them: k is the rank of the result, and `--rank` does not apply. Weights are 1 unless said. LoRA's own biases
are added with their weights.

What differs from the publication: a dense matrix has min(out, in) singular values, so its mean is over all of
them and the zeros among an adapter's become s̄ too, in directions that are rounding. Here only directions that
the sum has are kept, and the mean is over those.

Gauge: depends on the updates alone. Cost: O((out + in) N² + N³), N = Σ rᵢ; ΔW is never formed.

Source: Marczak et al. 2025 (ICML), https://arxiv.org/abs/2502.04959; code: github.com/danielm1405/iso-merging
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.methods import _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    k: int | None = None

    def __post_init__(self) -> None:
        _inner.check_least("k", self.k)


def iso_c(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, of rank k."""

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        core = _inner.iso(found, options.k)
        return core, {"k": core.rank}

    return _inner.merged(updates, context, rule)


METHOD = Method(
    iso_c,
    Options,
    source="https://arxiv.org/abs/2502.04959",
    copies=7,
    rank="own",
    weights="sum",
    bound=_inner.bound,
    breaks={
        "identity": "makes the singular values of a lone adapter equal too",
        "idempotence": "flattens, as identity, the sum of the copies",
        "linearity": "singular values are averaged, and of sums they are not sums",
    },
)
