"""Core space: merge the small matrices between two bases that all adapters share.

Per module, with orthonormal U (out, p) and V (in, q) that hold all updates, p, q ≤ Σ rᵢ:

1. ΔWᵢ = U Mᵢ Vᵀ, exactly
2. M = `inner`(M₁ … Mₙ)
3. ΔW = U M Vᵀ

Options
    inner    ties: of each Mᵢ the `density` share of entries largest in size; then the mean of those that have
             the sign of the sum. dare: the sum of entries kept with probability `density`, divided by it.
             dare-ties: the mean of such entries that have the sign of their sum. tsv and iso: as the methods
             `tsv` and `iso-c`, which see the same in any basis. linear: the sum
    basis    updates: U are the left singular vectors of [ΔW₁ … ΔWₙ], V the right ones of [ΔW₁; …; ΔWₙ].
             factors: those of [B₁ … Bₙ] and [A₁; …; Aₙ], as published
    density  for ties and dare, the share of entries kept, in (0, 1]
    k        tsv: singular triplets of each task, all unless said. iso: directions kept, as many as the task of
             largest rank has unless said; since all have the same weight, `--rank` should not be below it

Weights multiply the updates before 1 and are 1 unless said. LoRA's own biases are added with their weights.

What differs from the publication: the basis is by default one that does not depend on how updates are written
down as B A, since entries do depend on the basis; with `factors`, √|scale| is in B and A, which are otherwise
taken as they are stored. iso there keeps all Σ rᵢ directions. The publication's share of entries for TIES is
searched for each set of tasks; 0.2 is that of TIES.

Gauge: depends on the updates alone, but for `basis=factors`, and for dare, which draws what it drops for each
place from the factors as they are stored. Signs are those that make the largest entry of each direction
positive; no inner rule sees them, but for ties of votes.

Cost: O((out + in) N² + N³) time, N = Σ rᵢ, and the n · p · q entries of the Mᵢ; ΔW is never formed.

Source: Panariello et al. 2025 (NeurIPS), https://arxiv.org/abs/2509.17786; code:
github.com/apanariello4/core-space-merging
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from loramerge.methods import _entries, _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    inner: Literal["ties", "dare", "dare-ties", "tsv", "iso", "linear"] = "ties"
    basis: Literal["updates", "factors"] = "updates"
    density: float = 0.2
    k: int | None = None

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.2, the value of TIES")
        _inner.check_least("k", self.k)


def core_space(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update."""

    def rule(found: Joint) -> tuple[Tensor | LowRank, Mapping[str, Any]]:
        report = {"core": list(found.cores[0].shape)}
        if options.inner == "tsv":
            return _inner.tsv(found, options.k), report
        if options.inner == "iso":
            return _inner.iso(found, options.k), report
        return _inner.entrywise(found.cores, options.inner, options.density, context), report

    return _inner.merged(updates, context, rule, basis=options.basis)


METHOD = Method(
    core_space,
    Options,
    source="https://arxiv.org/abs/2509.17786",
    copies=7,
    weights="sum",
    random=True,
    breaks={
        "identity": "trims a lone adapter too",
        "idempotence": "trims, as identity",
        "linearity": "signs are elected, and the basis depends on the weights",
    },
)
