"""robust: RobustMerge. Prune A and B, strengthen weak units to make up for it, normalise across adapters.

With √|wᵢsᵢ| in both halves of adapter i (the sign in A), and per module:

1. of each Aᵢ and each Bᵢ the `density` share of entries largest in size is kept, giving Âᵢ and B̂ᵢ
2. unit j of adapter i gets what pruning cost its row of A, Sᵢⱼ = Σ|Aᵢ[j]| / Σ|Âᵢ[j]|; ratios below the
   (1 − lift) quantile of adapter i are raised to it
3. A = λ Σᵢ Âᵢ,   B[:, j] = λ Σᵢ Sᵢⱼ B̂ᵢ[:, j] / Σᵢ Sᵢⱼ,   ΔW = B A

So A's are added and B's averaged, each apart: like `factorwise` this holds products BᵢAⱼ of different
adapters, which is how the authors' code has it.

Options
    density   share of entries kept, 0.2 as in the code: the ⌊numel · (1 − density)⌋-th smallest on
    lift      0.2 as in the code
    factor    λ, 2 as in the code. It goes into both halves, so the update is multiplied by its square

The formula is that of the authors' repository (AuroraZengfh/RobustMerge, llava/model/builder.py); the
paper's own text was not read. What differs from the code: ranks may differ (the missing units count nowhere);
scales and weights are folded in; a row of which nothing is left gets 1 (there: infinity); what is zero is left out
(there: its A would be added); tensors beside LoRA follow `--extras`. LoRA's own biases are summed:
Σ wᵢ sᵢ biasᵢ. Weights are 1 unless said.

Gauge: depends on how factors are written down, by its nature. Cost: O((out + in) Σ rᵢ log), and that of
the truncation.

Source: Zeng et al. 2025 (NeurIPS 2025), https://arxiv.org/abs/2502.17159
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from loramerge.errors import BadOption
from loramerge.methods import _entries, _weighing
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.2
    lift: float = 0.2
    factor: float = 2.0

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.2, the value of the authors' code")
        _entries.check_share("lift", self.lift, "0.2, the value of the authors' code")
        if not isfinite(self.factor):
            raise BadOption(f"A factor of {self.factor} has no meaning.", hint="2")


def robust(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """One update of the largest rank, in float64."""
    import torch

    from loramerge.core.lowrank import LowRank, common_shape
    from loramerge.linalg.units import nothing, total_bias

    weighted = _weighing.weighted(updates, context)
    bias = total_bias(weighted)
    alive = [part for part in (u.to(dtype=torch.float64).folded() for u in weighted) if part.b.any() and part.a.any()]
    if not alive:
        return Outcome([replace(nothing(common_shape(weighted)), bias=bias)])
    rank = max(part.rank for part in alive)
    a, b, total = (
        alive[0].a.new_zeros(sides) for sides in ((rank, alive[0].shape[1]), (alive[0].shape[0], rank), rank)
    )
    for part in alive:
        pruned = prune(part.a, options.density)
        strength = ratios(part.a, pruned, options.lift)
        a[: part.rank] += pruned
        b[:, : part.rank] += strength * prune(part.b, options.density)
        total[: part.rank] += strength
    return Outcome([LowRank(b=options.factor * b / total, a=options.factor * a, bias=bias)])


def prune(side: Tensor, density: float) -> Tensor:
    """A factor with all but its largest entries in size set to zero."""
    place = max(1, int(side.numel() * (1 - density)))
    least = side.abs().flatten().kthvalue(place).values
    pruned: Tensor = side.where(side.abs() >= least, 0.0)
    return pruned


def ratios(a: Tensor, pruned: Tensor, lift: float) -> Tensor:
    """(r,) Σ|a[j]| / Σ|pruned[j]| for each row, none below the (1 − lift) quantile of all."""
    left = pruned.abs().sum(1)
    found = (a.abs().sum(1) / left).where(left > 0, 1.0)
    least = found.sort().values[min(len(found) - 1, int(len(found) * (1 - lift)))]
    raised: Tensor = found.clamp(min=float(least))
    return raised


METHOD = Method(
    robust,
    Options,
    source="https://arxiv.org/abs/2502.17159",
    weights="sum",
    breaks={
        "identity": "prunes, and multiplies by λ²",
        "idempotence": "as identity",
        "units": "unit j is added to the others' unit j",
        "gauge": "entries of A and B are pruned as they are written down",
        "linearity": "weights go into both halves, and products of adapters appear",
    },
)
