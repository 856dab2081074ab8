"""The best approximation of a given rank of a sum of updates, from their factors.

Eckart–Young: with S = Σ ΔWᵢ = Σ_j s_j u_j v_jᵀ, the closest matrix of rank r in Frobenius norm is the
sum of its first r terms, and its error is √(Σ_{j>r} s_j²). No (out, in) matrix is formed unless the
factors hold as many units as it has rows or columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from loramerge.core.lowrank import LowRank, cat
from loramerge.core.updates import Updates
from loramerge.linalg.ranks import RankRule
from loramerge.linalg.units import column_lengths, nothing, total_bias

if TYPE_CHECKING:
    from torch import Tensor

GRAM_LIMIT = 512
"""Up to so many units a Gram matrix and its eigenvectors stand in for QR: up to twice as fast in float64."""

BLOCK = 256
"""Units that are added to a dense sum at once: wide enough for a fast product, narrow enough to be small."""

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
    """S = (product of `lift`) · x · xᵀ · (product of `core`), singular values `s` (k,); x (m, k).

    Only the directions that are asked for are multiplied out. `flipped` says that this is Sᵀ.
    """

    s: Tensor
    x: Tensor
    core: tuple[Tensor, ...]
    lift: tuple[Tensor, ...]
    flipped: bool
    energy: float
    bias: Tensor | None

    def keep(self, rank: int) -> LowRank:
        """The first `rank` directions; the singular values are shared equally between b and a."""
        left = x = self.x[:, :rank]
        for factor in reversed(self.lift):
            left = factor @ left
        right = x.T
        for factor in self.core:
            right = right @ factor
        root = right.norm(dim=1).sqrt()
        left, right = left * root, right / root[:, None]
        return settled(right.T, left.T) if self.flipped else settled(left, right)


def settled(b: Tensor, a: Tensor) -> LowRank:
    """b a with the largest entry (the first of equals) of each column of b positive: same inputs, same bytes."""
    sign = (b.gather(0, b.abs().argmax(0, keepdim=True)) < 0).to(b.dtype) * -2 + 1
    return LowRank(b=(b * sign).contiguous(), a=(a * sign.T).contiguous())


def truncate_sum(
    deltas: Sequence[LowRank], rule: RankRule | int, *, ranks: Sequence[int] | None = None, metric: Tensor | None = None
) -> Truncated:
    """The closest update to Σ ΔWᵢ of the rank that `rule` names, in float64, scale 1, biases added.

    `ranks` are what "max" and "sum" count; without it, those of `deltas`. Where the rank is not below
    Σ rᵢ the factors are kept side by side and nothing is rounded but by folding scales. A result can
    have fewer directions than asked: it is never padded, and the update zero has one unit of zeros.

    With a `metric` C (in, in), positive semi-definite, closest means that tr(D C Dᵀ) is least for the
    difference D: with C the covariance of the inputs that is the mean squared error of the outputs, and
    error and spectrum are of S C^½.

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
    found = decompose(updates, metric)
    cut = truncate_decomposed(found, rule, ranks=ranks, shape=updates.shape)
    if cut.spectrum is not None and rule.choose(cut.spectrum, ranks) >= total:
        return Truncated(_kept(updates), 0.0, cut.spectrum)
    return cut


def truncate_decomposed(
    found: Decomposed, rule: RankRule, *, ranks: Sequence[int], shape: tuple[int, int]
) -> Truncated:
    """The leading directions of a decomposition of some (out, in), as many as `rule` names."""
    spectrum = tuple(found.s.tolist())
    rank = rule.choose(spectrum, ranks)
    lost = sum(value * value for value in reversed(spectrum[rank:]))
    delta = found.keep(rank) if spectrum else nothing(shape)
    error = (lost / found.energy) ** 0.5 if spectrum else 0.0
    return Truncated(replace(delta, bias=found.bias), error, spectrum)


def decomposed_dense(total: Tensor, bias: Tensor | None = None, metric: Tensor | None = None) -> Decomposed:
    """The decomposition of a matrix (out, in) in float64 that is there as it is; else as `decompose`."""
    flipped = total.shape[0] > total.shape[1] and metric is None
    return _decomposed(_Gathered((), (total.T.contiguous() if flipped else total,), 0.0, bias), flipped, metric)


def decompose(deltas: Sequence[LowRank], metric: Tensor | None = None) -> Decomposed:
    """The singular value decomposition of Σ ΔWᵢ, unexpanded. Exact up to FLOOR; each update is loaded once.

    Sᵀ is taken where S has more rows than columns, so that `core` has the fewer. With a metric the values
    and directions are those of S C^½, and what is kept is the projection of S itself.
    """
    updates = Updates.of(deltas)
    out, in_ = updates.shape
    flipped = out > in_ and metric is None
    gathered = (_dense if sum(updates.ranks) >= min(out, in_) else _stacked)(updates, flipped)
    return _decomposed(gathered, flipped, metric)


def _decomposed(gathered: _Gathered, flipped: bool, metric: Tensor | None) -> Decomposed:
    import torch

    values, vectors = torch.linalg.eigh(gathered.gram(metric))
    if metric is None and gathered.squares is not None and _cancels(values, gathered.bound):
        values, vectors = torch.linalg.eigh(replace(gathered, squares=None).gram(None))
    s = values.clamp(min=0).sqrt().flip(0)
    # What is left where updates cancel is rounding too, of the units that went in.
    rounding = 8 * torch.finfo(s.dtype).eps * gathered.sizes if metric is None else 0.0
    kept = int((s > max(FLOOR * float(s.max()), rounding)).sum()) if s.numel() else 0
    x, energy = vectors.flip(1)[:, :kept], float(values.clamp(min=0).sum())
    return Decomposed(s[:kept], x, gathered.core, gathered.lift, flipped, energy, gathered.bias)


def _cancels(values: Tensor, bound: float) -> bool:
    """Whether the sum is so much smaller than its terms that products of their Grams have lost its digits."""
    return values.numel() > 0 and float(values.max()) * 4 < bound


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Σ ΔWᵢ (or its transpose) = (product of lift) · (product of core), the columns of the lift orthonormal.

    `sizes` is Σ |a||b| of all units. `squares` is core · coreᵀ, where it follows from the units' Grams;
    it is off by rounding of `bound`, which is never less than its largest eigenvalue.
    """

    lift: tuple[Tensor, ...]
    core: tuple[Tensor, ...]
    sizes: float
    bias: Tensor | None
    squares: Tensor | None = None
    bound: float = 0.0

    def gram(self, metric: Tensor | None) -> Tensor:
        """core · (metric ·) coreᵀ."""
        if metric is None and self.squares is not None:
            return self.squares
        first, *others = self.core
        for factor in others:
            first = first @ factor
        measured = first if metric is None else first @ metric.to(first)
        return measured @ first.T


def _stacked(updates: Updates, flipped: bool) -> _Gathered:
    import torch

    (units,) = _blocks(updates, sum(updates.ranks))
    b, a = (units.a.T, units.b.T) if flipped else (units.b, units.a)
    outer, inner = b.T @ b, a @ a.T
    left, right = outer.diagonal().sqrt(), inner.diagonal().sqrt()
    sizes = left * right * units.scale.abs()
    # Balanced, |a| = |b|: a large column of b that meets a small row of a must not hide the others.
    to_b = (sizes.sqrt() / left).where(sizes > 0, 0.0)
    to_a = (sizes.sqrt() / right).where(sizes > 0, 0.0) * units.scale.sign()
    total = float(sizes.sum())
    if len(sizes) > GRAM_LIMIT:
        q, r = torch.linalg.qr(b * to_b)
        return _Gathered((q,), ((r * to_a) @ a,), total, units.bias)
    outer, inner = outer * to_b * to_b[:, None], inner * to_a * to_a[:, None]
    whiten, back, largest = _gram_basis(outer)
    squares = back @ inner @ back.T
    bound = largest * float(inner.abs().sum(1).max())
    return _Gathered((b, to_b[:, None] * whiten), (back * to_a, a), total, units.bias, squares, bound)


def _dense(updates: Updates, flipped: bool) -> _Gathered:
    import torch

    total, sizes, biases = None, 0.0, []
    for units in _blocks(updates, BLOCK):
        a = units.a * units.scale[:, None]
        total = a.new_zeros(updates.shape) if total is None else total
        total.addmm_(units.b, a)
        sizes += float((column_lengths(units.b) * torch.linalg.vector_norm(a, dim=1)).sum())
        biases += [] if units.bias is None else [units.bias]
    assert total is not None
    bias = torch.stack(biases).sum(0) if biases else None
    return _Gathered((), (total.T.contiguous() if flipped else total,), sizes, bias)


@dataclass(frozen=True, slots=True)
class _Units:
    """N units as they are stored, in float64: b (out, N), a (N, in), `scale` (N,); the sum of their biases."""

    b: Tensor
    a: Tensor
    scale: Tensor
    bias: Tensor | None


def _blocks(updates: Updates, limit: int) -> Iterator[_Units]:
    """The units of all updates in turn, at most `limit` (or one update's) at once, in memory that is used again."""
    import torch

    groups = _groups(updates.ranks, limit)
    width, buffers = max(map(sum, groups)), None
    loads = iter(updates)
    for ranks in groups:
        at, biased = 0, []
        for delta in islice(loads, len(ranks)):
            flat = delta if delta.mid is None else delta.to(dtype=torch.float64).plain()
            if buffers is None:
                (out, in_), new = updates.shape, torch.zeros((), dtype=torch.float64, device=flat.b.device).new_empty
                buffers = new(out, width), new(width, in_), new(width)
            units = slice(at, at + flat.rank)
            buffers[0][:, units] = flat.b
            buffers[1][units] = flat.a
            buffers[2][units] = flat.scale
            biased += [] if flat.bias is None else [flat]
            at = units.stop
            del delta, flat  # before the next is loaded
        assert buffers is not None
        yield _Units(buffers[0][:, :at], buffers[1][:at], buffers[2][:at], total_bias(biased))


def _groups(ranks: Sequence[int], limit: int) -> list[list[int]]:
    """Ranks in order, in groups of at most `limit` together; a larger one stands alone."""
    groups: list[list[int]] = []
    for rank in ranks:
        if not groups or sum(groups[-1]) + rank > limit:
            groups.append([])
        groups[-1].append(rank)
    return groups


def _gram_basis(gram: Tensor) -> tuple[Tensor, Tensor, float]:
    """(w, v, λ) with b = (b w) v, the columns of b w orthonormal, from b's Gram; its largest eigenvalue."""
    import torch

    values, vectors = torch.linalg.eigh(gram)
    kept = values > torch.finfo(gram.dtype).eps * values.max()
    root = values[kept].sqrt()
    return vectors[:, kept] / root, root[:, None] * vectors[:, kept].T, float(values.max())


def _kept(deltas: Updates) -> LowRank:
    return cat([_scaled(delta) for delta in deltas])


def _scaled(delta: LowRank) -> LowRank:
    """The same update with scale 1, all of it in b: a power of two, as scales mostly are, rounds nothing."""
    import torch

    flat = delta.to(dtype=torch.float64).plain()
    bias = None if flat.bias is None else flat.bias * flat.scale
    return replace(flat, b=flat.b * flat.scale, scale=1.0, bias=bias)
