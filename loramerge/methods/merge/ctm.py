"""Compress then merge: one pair of k-dimensional spaces for all updates, and a merge in there.

Per module:

1. orthonormal U (out, k) and V (in, k) that hold most of all updates together: the largest
   Σᵢ ‖Uᵀ ΔWᵢ V‖² / ‖ΔWᵢ‖^(2 − 2·balance)
2. Cᵢ = Uᵀ ΔWᵢ V, C = `inner`(C₁ … Cₙ)
3. ΔW = U C Vᵀ, of rank k by construction

1 is a Tucker decomposition: U and V start as the leading eigenvectors of Σ ΔWᵢΔWᵢᵀ and Σ ΔWᵢᵀΔWᵢ, and each is
found anew with the other kept, until what they hold grows by less than 10⁻⁶ of it (HOOI, at most 1000 times).

Options
    k        the dimension of both spaces and the rank of the result, so `--rank` does not apply; the rank of the
             task of largest rank unless said
    inner    linear: the sum. ties: of each Cᵢ the `density` share of entries largest in size, then the mean of
             those that have the sign of the sum
    density  for ties, in (0, 1]
    balance  what an update of large norm counts for in 1. 0: all the same, as in the authors' code. 1: as its
             square. Between: as its norm to the power 2·balance

Weights multiply the updates before anything (with balance 0 only their signs do not matter in 1) and are 1 unless
said. LoRA's own biases are added with their weights.

What differs from the authors' code: norms are blended there as balance · ‖ΔWᵢ‖ + (1 − balance) · mean norm; the
two ends are the same. Entries for ties are those in the spaces' eigenvectors, largest first.

Gauge: depends on the updates alone. Cost: O((out + in) N² + N³) and O(n k N²) for each round of 1, N = Σ rᵢ;
ΔW is never formed.

Source: He et al. 2026 (ICML), https://arxiv.org/abs/2606.03723; code: github.com/ZhengbaoHe/compress-then-merge
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from loramerge.errors import BadOption
from loramerge.methods import _entries, _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint

_ROUNDS, _SETTLED = 1000, 1e-6


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    k: int | None = None
    inner: Literal["linear", "ties"] = "linear"
    density: float = 0.2
    balance: float = 0.0

    def __post_init__(self) -> None:
        _inner.check_least("k", self.k)
        _entries.check_share("density", self.density, "0.2, the value of TIES")
        if not 0 <= self.balance <= 1:
            raise BadOption(f"balance is {self.balance}, outside [0, 1].", hint="0, all updates count the same")


def ctm(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, of rank k at most."""

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        from loramerge.core.lowrank import LowRank

        k = options.k or _inner.largest_rank(_inner.tasks(found))
        u, v, held = spaces(found.cores, k, options.balance)
        small = [LowRank(b=u.T @ core.b, a=core.a @ v) for core in found.cores]
        merged = _inner.entrywise(small, options.inner, options.density, context)
        return LowRank(b=u @ merged, a=v.T), {"k": u.shape[1], "held": held}

    return _inner.merged(updates, context, rule)


def spaces(cores: Sequence[LowRank], k: int, balance: float) -> tuple[Tensor, Tensor, float]:
    """(p, k) and (q, k) orthonormal for cores (p, q), and the share of their (balanced) squares in them."""
    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import root
    from loramerge.linalg.measure import norm

    sizes = [norm(core) for core in cores]
    whole = sum(size ** (2 * balance) for size in sizes if size > 0)
    living = [core.times(size ** (balance - 1)) for core, size in zip(cores, sizes, strict=True) if size > 0]
    ahead = [(core.b * core.scale, core.a) for core in living]
    v = _leading([root(LowRank(b=core.a.T, a=core.b.T, scale=core.scale)) for core in living], k)
    held = float("-inf")
    for _ in range(_ROUNDS):
        u = _leading([b @ (a @ v) for b, a in ahead], k)
        back = [a.T @ (b.T @ u) for b, a in ahead]
        v = _leading(back, k)
        before, held = held, sum(float((part.T @ v).square().sum()) for part in back) / whole
        if held - before <= _SETTLED * held:
            break
    return u, v, held


def _leading(parts: Sequence[Tensor], k: int) -> Tensor:
    """(p, ≤ k) the leading left singular vectors of matrices (p, …) side by side."""
    import torch

    stacked = torch.cat(list(parts), dim=1)
    vectors = torch.linalg.eigh(stacked @ stacked.T)[1]
    leading: Tensor = vectors.flip(1)[:, :k]
    return leading


METHOD = Method(
    ctm,
    Options,
    source="https://arxiv.org/abs/2606.03723",
    copies=7,
    rank="own",
    weights="sum",
    bound=_inner.bound,
    breaks={
        "idempotence": "copies are added up, not averaged: at weights of 1/n it holds",
        "linearity": "a task has its say in the spaces at any weight but zero",
    },
)
