"""Iso-CTS: the common directions of the sum and each task's own, all with the same singular value.

Per module, with n tasks that have an update at all:

1. common: the first c singular triplets U_c, S_c, V_c of Σ ΔWᵢ
2. own: of each task the first t triplets of (I − U_c U_cᵀ) ΔWᵢ
3. U = [U₁ … Uₙ U_c] and V alike, made orthonormal by their polar factors U⊥, V⊥
4. ΔW = s̄ · U⊥ V⊥ᵀ, s̄ the mean of all singular values in 1 and 2

Options
    k       directions kept in all, c + n t; as many as the task of largest rank has unless said
    common  the share of them that is common, in (0, 1]: t = (k − ⌊common · k⌋) / n, rounded, and c = k − n t

A task that has fewer than t directions outside the common ones gives those it has. All directions have the same
weight: k is the rank of the result, and `--rank` does not apply. Weights multiply the updates and are 1 unless
said. LoRA's own biases are added with their weights.

What differs from the publication: k is min(out, in) there, so that dense matrices are filled up; an adapter of
that rank is none. Common directions are removed on the left side only, as in the authors' code. Directions that
are rounding are left out, and such that coincide (to 1e-6) share one polar factor.

Gauge: depends on the updates alone. Cost: O((out + in) N² + n N³), N = Σ rᵢ; ΔW is never formed.

Source: Marczak et al. 2025 (ICML), https://arxiv.org/abs/2502.04959; code: github.com/danielm1405/iso-merging
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.methods import _entries, _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    k: int | None = None
    common: float = 0.8

    def __post_init__(self) -> None:
        _inner.check_least("k", self.k)
        _entries.check_share("common", self.common, "0.8, the value of the publication")


def iso_cts(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, of rank k at most."""

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        from loramerge.core.lowrank import LowRank
        from loramerge.linalg.joint import triplets

        tasks = _inner.tasks(found)
        living = [part for part in tasks if len(part.s)]
        k = options.k or _inner.largest_rank(tasks)
        own = split(k, len(living), options.common)
        common = triplets(_inner.total(found), found.rounding).first(k - len(living) * own)
        left = [task.outside(common.u, found.rounding).first(own) for task in living]
        u, s, v = _inner.whitened([*left, common])
        return LowRank(b=u * s.mean(), a=v.T), {"k": len(s), "common": len(common.s)}

    return _inner.merged(updates, context, rule)


def split(k: int, tasks: int, common: float) -> int:
    """How many of k directions each task has for itself."""
    return min(round((k - int(common * k)) / tasks), k // tasks) if tasks else 0


METHOD = Method(
    iso_cts,
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
