"""KnOTS: merge entry by entry in the directions that the updates share, not in those of the weights.

Per module:

1. [ΔW₁ … ΔWₙ] = U S [V₁ … Vₙ]ᵀ, so that ΔWᵢ = U Pᵢ with Pᵢ = S Vᵢᵀ: one basis U for all outputs
2. P = `inner`(P₁ … Pₙ), entry by entry
3. ΔW = U P

Options
    inner    ties: of each Pᵢ the `density` share of entries largest in size; then the mean of those that have
             the sign of the sum. dare: the sum of entries kept with probability `density`, divided by it.
             dare-ties: the mean of such entries that have the sign of their sum. linear: the sum
    density  the share of entries kept, in (0, 1]; linear knows none
    drop     directions with singular values up to this share of the largest are left out

Weights multiply the updates before 1 and are 1 unless said (`--weights mean` for 1/n). LoRA's own biases are
added with their weights.

What differs from the authors' code: scales α/r are in the updates, which it ignores; the share of entries is
taken per module, there over all modules at once; a tie of signs is +, there the majority of the whole. It drops
singular values up to 1e-5, whatever the scale: here what rounding leaves, or the share `drop`. The publication
leaves `density` to the task: its vision settings trim TIES to 0.2, its language settings (Llama 3) not at all;
`density=1` is the latter.

Gauge: depends on the updates alone; the sign of each direction is that its largest entry be positive. Where
singular values are equal the directions between them are not determined, and what is dropped at random is
drawn for each place from the factors as they are stored.

Cost: O(out N² + in Σ rᵢ² + N³) for the basis, N = Σ rᵢ, and O(in · N²) for the entries of the Pᵢ, n · N · in of
them; ΔW is never formed.

Source: Stoica et al. 2024 (ICLR 2025), https://arxiv.org/abs/2410.19735; code: github.com/gstoica27/KnOTS
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption
from loramerge.methods import _entries, _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    inner: _inner.Entrywise = "ties"
    density: float = 0.2
    drop: float = 0.0

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.2 or 1, the values of the publication")
        if not 0 <= self.drop < 1:
            raise BadOption(f"drop is {self.drop}, outside [0, 1).", hint="0, or 1e-5")


def knots(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, of as many directions as the updates have together."""

    def rule(found: Joint) -> tuple[Tensor, Mapping[str, Any]]:
        merged = _inner.entrywise(found.cores, options.inner, options.density, context)
        return merged, {"directions": found.cores[0].shape[0]}

    return _inner.merged(updates, context, rule, basis="updates", right=False, drop=options.drop)


METHOD = Method(
    knots,
    Options,
    source="https://arxiv.org/abs/2410.19735",
    copies=8,
    weights="sum",
    random=True,
    breaks={
        "identity": "trims a lone adapter too",
        "idempotence": "trims, as identity",
        "linearity": "signs are elected, and the directions depend on the weights",
    },
)
