"""The best approximation of a given rank of a sum of updates, from their factors.

Eckart–Young: with S = Σ ΔWᵢ = Σ_j s_j u_j v_jᵀ, the closest matrix of rank r in Frobenius norm is the
sum of its first r terms, and its error is √(Σ_{j>r} s_j²). No (out, in) matrix is formed unless the
factors hold as many units as it has rows or columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loramerge.core.lowrank import LowRank, cat
from loramerge.core.updates import Updates
from loramerge.linalg.ranks import RankRule
from loramerge.linalg.units import balanced, pool, zero

if TYPE_CHECKING:
    from torch import Tensor

GRAM_LIMIT = 512
"""Up to so many units a Gram matrix and its eigenvectors stand in for QR: up to twice as fast in float64."""

FLOOR = 2.0**-26
"""Singular values up to FLOOR · s₁ are rounding: a Gram in float64 squares them, and √eps is 2⁻²⁶."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """A sum of updates at some rank, and what that cost.

    `relative_error` is ‖delta − sum‖ / ‖sum‖ in Frobenius norm. `spectrum` are the singular values of
    the sum, largest first, without those that are rounding; None where the factors were kept as they
    are and nobody had to know.
    """

    delta: LowRank
    relative_error: float
    spectrum: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Decomposed:
    """S = (product of `lift`) · x · xᵀ · core, singular values `s` (k,); x (m, k), core (m, wide).

    Only the directions that are asked for are multiplied out. `flipped` says that this is Sᵀ.
    """

    s: Tensor
    x: Tensor
    core: Tensor
    lift: tuple[Tensor, ...]
    flipped: bool
    energy: float
    bias: Tensor | None

    def keep(self, rank: int) -> LowRank:
        """The first `rank` directions; the singular values are shared equally between b and a.

        The largest entry (the first of equals) of each column of b is positive, so that the same
        inputs give the same bytes.
        """
        left = x = self.x[:, :rank]
        for factor in reversed(self.lift):
            left = factor @ left
        right = x.T @ self.core
        root = right.norm(dim=1).sqrt()
        left, right = left * root, right / root[:, None]
        b, a = (right.T, left.T) if self.flipped else (left, right)
        sign = (b.gather(0, b.abs().argmax(0, keepdim=True)) < 0).to(b.dtype) * -2 + 1
        return LowRank(b=(b * sign).contiguous(), a=(a * sign.T).contiguous())


def truncate_sum(deltas: Sequence[LowRank], rule: RankRule | int, *, ranks: Sequence[int] | None = None) -> Truncated:
    """The closest update to Σ ΔWᵢ of the rank that `rule` names, in float64, scale 1, biases added.

    `ranks` are what "max" and "sum" count; without it, those of `deltas`. Where the rank is not below
    Σ rᵢ the factors are kept side by side and nothing is rounded but by folding scales. A result can
    have fewer directions than asked: it is never padded, and the update zero has one unit of zeros.

    Cost, N = Σ rᵢ: O((out + in) N² + N³) time and O((out + in) N) memory, QR instead of Gram above
    GRAM_LIMIT; from N = min(out, in) on O(out · in · (N + min(out, in))) time and O(out · in) memory,
    whatever N is: updates that load when they are asked for are held one at a time. Raises ShapeMismatch
    where the updates have different (out, in).
    """
    rule = rule if isinstance(rule, RankRule) else RankRule("fixed", rule)
    updates = Updates.of(deltas)
    ranks = updates.ranks if ranks is None else ranks
    total = sum(updates.ranks)
    asked = rule.asked(ranks)
    if asked is not None and asked >= total:
        return Truncated(_kept(updates), 0.0)
    found = decompose(updates)
    spectrum = tuple(found.s.tolist())
    rank = rule.choose(spectrum, ranks)
    if rank >= total:
        return Truncated(_kept(updates), 0.0, spectrum)
    lost = sum(value * value for value in reversed(spectrum[rank:]))
    delta = found.keep(rank) if spectrum else zero(updates[0])
    error = (lost / found.energy) ** 0.5 if spectrum else 0.0
    return Truncated(replace(delta, bias=found.bias), error, spectrum)


def decompose(deltas: Sequence[LowRank]) -> Decomposed:
    """The singular value decomposition of Σ ΔWᵢ, unexpanded. Exact up to FLOOR; each update is loaded once.

    Sᵀ is taken where S has more rows than columns, so that `core` has the fewer.
    """
    import torch

    updates = Updates.of(deltas)
    out, in_ = updates.shape
    gathered = (_dense if sum(updates.ranks) >= min(out, in_) else _stacked)(updates, out > in_)
    core = gathered.core
    values, vectors = torch.linalg.eigh(core @ core.T)
    s = values.clamp(min=0).sqrt().flip(0)
    # What is left where updates cancel is rounding too, of the units that went in.
    rounding = 8 * torch.finfo(s.dtype).eps * gathered.sizes
    kept = int((s > max(FLOOR * float(s.max()), rounding)).sum()) if s.numel() else 0
    x, energy = vectors.flip(1)[:, :kept], float(values.clamp(min=0).sum())
    return Decomposed(s[:kept], x, core, gathered.lift, out > in_, energy, gathered.bias)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Σ ΔWᵢ (or its transpose) = lift · core, the columns of lift orthonormal; Σ |a||b| of all units; the bias."""

    lift: tuple[Tensor, ...]
    core: Tensor
    sizes: float
    bias: Tensor | None


def _stacked(updates: Updates, flipped: bool) -> _Gathered:
    import torch

    whole = cat([delta.to(dtype=torch.float64) for delta in updates])
    # Balanced: a large column of b that meets a small row of a must not hide the others.
    units = balanced(_transposed(whole) if flipped else whole)
    sizes = float(pool([units]).sizes().sum())
    if units.rank <= GRAM_LIMIT:
        whiten, back = _gram_basis(units.b)
        return _Gathered((units.b, whiten), back @ units.a, sizes, whole.bias)
    q, r = torch.linalg.qr(units.b)
    return _Gathered((q,), r @ units.a, sizes, whole.bias)


def _dense(updates: Updates, flipped: bool) -> _Gathered:
    import torch

    total, sizes, biases = None, 0.0, []
    for delta in updates:
        part = delta.to(dtype=torch.float64).folded()
        total = part.b.new_zeros(updates.shape) if total is None else total
        total.addmm_(part.b, part.a)
        sizes += float(pool([part]).sizes().sum())
        biases += [] if part.bias is None else [part.bias]
    assert total is not None
    bias = torch.stack(biases).sum(0) if biases else None
    return _Gathered((), total.T.contiguous() if flipped else total, sizes, bias)


def _gram_basis(b: Tensor) -> tuple[Tensor, Tensor]:
    """(w, v) with b = (b w) v and the columns of b w orthonormal, from the eigenvectors of bᵀb."""
    import torch

    values, vectors = torch.linalg.eigh(b.T @ b)
    kept = values > torch.finfo(b.dtype).eps * values.max()
    root = values[kept].sqrt()
    return vectors[:, kept] / root, root[:, None] * vectors[:, kept].T


def _transposed(delta: LowRank) -> LowRank:
    import torch

    flat = delta if delta.mid is None else delta.to(dtype=torch.float64).plain()
    return LowRank(b=flat.a.T, a=flat.b.T, scale=flat.scale)


def _kept(deltas: Updates) -> LowRank:
    return cat([_scaled(delta) for delta in deltas])


def _scaled(delta: LowRank) -> LowRank:
    """The same update with scale 1, all of it in b: a power of two, as scales mostly are, rounds nothing."""
    import torch

    flat = delta.to(dtype=torch.float64).plain()
    bias = None if flat.bias is None else flat.bias * flat.scale
    return replace(flat, b=flat.b * flat.scale, scale=1.0, bias=bias)
