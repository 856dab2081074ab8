"""TSV-Merge: the singular vectors of all tasks, made orthogonal to one another.

Per module, with ΔWᵢ = Uᵢ Sᵢ Vᵢᵀ and the first `k` triplets of each task side by side,
U = [U₁ … Uₙ], S = diag(S₁ … Sₙ), V = [V₁ … Vₙ]:

    ΔW = U⊥ S V⊥ᵀ,    X⊥ = X (XᵀX)^(−½)

X⊥ is the polar factor of X: the closest matrix with orthonormal columns. What tasks do in different
directions is left alone; where their directions are close to one another they are turned apart.

Options
    k    singular triplets of each task; all it has unless said

Weights multiply the updates, hence the singular values, and are 1 unless said. LoRA's own biases are added
with their weights.

What differs from the publication: it keeps 1/n of min(out, in) triplets of each task, which is more than
adapters have unless Σ rᵢ exceeds min(out, in): their code therefore keeps all that an adapter has (and, of dense
matrices, directions of rounding, which take part in the whitening; here they do not). Directions of different
tasks that coincide (to 1e-6) have no polar factor: they share one, by the pseudo-inverse, so that n copies of
one adapter give that adapter back.

Gauge: depends on the updates alone. Cost: O((out + in) N² + N³), N = Σ rᵢ; ΔW is never formed.

Source: Gargiulo et al. 2025 (CVPR), https://arxiv.org/abs/2412.00081; code:
github.com/AntoAndGar/task_singular_vectors
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


def tsv(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, with as many units as triplets were kept."""

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        core = _inner.tsv(found, options.k)
        return core, {"triplets": core.rank}

    return _inner.merged(updates, context, rule)


METHOD = Method(
    tsv,
    Options,
    source="https://arxiv.org/abs/2412.00081",
    copies=7,
    weights="sum",
    breaks={"linearity": "a task turns the others' directions aside at any weight but zero"},
)
