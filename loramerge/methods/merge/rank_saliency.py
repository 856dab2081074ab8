"""Rank saliency: keep each adapter's units that matter most and agree with the others, round by round.

Per module, with unit k of adapter i the product b aᵀ of a column of √|wᵢsᵢ| Bᵢ (with the sign of wᵢsᵢ) and a row of
√|wᵢsᵢ| Aᵢ, in `rounds` rounds:

1. D̄ = the sum of all units that are left
2. saliency s = |γ η|: γ = |b|₁ |a|₁, how much passes through the unit; η = bᵀ D̄ a, how much it has in common
   with what is merged
3. of each adapter the units with the highest s stay, ⌈r · density^(t/rounds)⌉ of them after round t

and ΔW is the sum of what is left: units as they were, none cut or mixed.

Options
    density  the share of each adapter's units that is left, in (0, 1]
    rounds   how many rounds it takes to get there; each starts from the sum of what the last one left
    sign     both: s as above. same: s = γ η, so that units that point against the sum go first

Weights are 1 unless said. LoRA's own biases are added with their weights.

What differs from the publication: γ there is bᵀ G a with G the derivative of Σ ∏ₗ |W₀ + ΔW|ₗ, the connectivity
of the whole network (SynFlow), which an adapter without its base does not have; |b|₁|a|₁ is the connectivity of
the unit itself, the same derivative for the two layers A and B. Its full text and code could not be read: the
score, that pruning is per adapter and module, and 10 rounds are from a published summary; it leaves 10 % of
single weights, of how many ranks is not known. At 0.25 four adapters of rank r leave rank r. `sign=same` is what
it does with single weights.

Gauge: depends on how the factors are written down, by the nature of units; not on the sign or scale of single
units, nor on their order. Cost: O((out + in) N²) for inner products and O(rounds · N²), N = Σ rᵢ.

Source: Park et al. 2026 (ICML), Saliency-Aware Model Merging, https://arxiv.org/abs/2606.00511
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Literal

from loramerge.methods import _entries, _inner, _weighing
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.25
    rounds: int = 10
    sign: Literal["both", "same"] = "both"

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.25")
        _inner.check_least("rounds", self.rounds)


def rank_saliency(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The units that are left."""
    import torch

    from loramerge.linalg.units import nothing, pool, total_bias

    weighted = _weighing.weighted(updates, context)
    units = pool(weighted)
    units = units.take(units.sizes() > 0).ordered()
    passes = torch.linalg.vector_norm(units.a, ord=1, dim=1) * torch.linalg.vector_norm(units.b, ord=1, dim=1)
    left = prune(units.gram(product=True), passes, units.owner, options)
    kept = units.take(left)
    delta = kept.lowrank() if len(kept) else nothing(updates[0].shape)
    counts = kept.owner.bincount(minlength=len(weighted)).tolist()
    return Outcome([replace(delta, bias=total_bias(weighted))], {"units": len(units), "kept": counts})


def prune(products: Tensor, passes: Tensor, owner: Tensor, options: Options) -> Tensor:
    """(N,) which units are left, from their inner products (N, N), γ (N,) and whose they are."""
    import torch

    left = torch.ones_like(owner, dtype=torch.bool)
    ranks = owner.bincount()
    for turn in range(1, options.rounds + 1):
        saliency = passes * products[:, left].sum(1)
        saliency = saliency.abs() if options.sign == "both" else saliency
        for i, rank in enumerate(ranks.tolist()):
            own = (left & (owner == i)).nonzero().ravel()
            order = saliency[own].argsort(descending=True, stable=True)
            left[own[order[share(rank, options.density ** (turn / options.rounds)) :]]] = False
    return left


def share(rank: int, density: float) -> int:
    """⌈density · rank⌉, a whole number staying what it is in spite of rounding."""
    return ceil(density * rank - 1e-9)


def bound(options: Options, ranks: Sequence[int]) -> int:
    """What is left of each adapter's rank."""
    return max(1, sum(share(rank, options.density) for rank in ranks))


METHOD = Method(
    rank_saliency,
    Options,
    source="https://arxiv.org/abs/2606.00511",
    copies=6,
    rank="own",
    weights="sum",
    bound=bound,
    breaks={
        "identity": "prunes a lone adapter too",
        "idempotence": "prunes, as identity",
        "gauge": "units change under a rotation of the factors",
        "linearity": "which units are left depends on the weights",
    },
)
