"""The best approximation of a given rank of a sum of updates, from their factors.

Eckart–Young: with S = Σ ΔWᵢ = Σ_j s_j u_j v_jᵀ, the closest matrix of rank r in Frobenius norm is the
sum of its first r terms, and its error is √(Σ_{j>r} s_j²). No (out, in) matrix is formed unless the
factors hold as many units as it has rows or columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loramerge.core.arrays import EPS, add_product, extremes, lengths, namespace, numbers, zeros
from loramerge.core.lowrank import LowRank
from loramerge.core.updates import Updates
from loramerge.linalg.ranks import RankRule
from loramerge.linalg.stored import UNKNOWN, Norms, blocks, stored
from loramerge.linalg.units import bounded, nothing

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
    are and nobody had to know. `norms` are ‖delta‖ and those of the updates that were summed, as far as
    they came out by the way.
    """

    delta: LowRank
    relative_error: float
    spectrum: tuple[float, ...] | None = None
    norms: Norms = UNKNOWN


@dataclass(frozen=True, slots=True)
class Decomposed:
    """S = (product of `left`) · x · xᵀ · (product of `right`), singular values `s` (k,); x (m, k).

    Only the directions that are asked for are multiplied out. One of both sides is orthonormal, the left one
    unless `flipped`; `lengths` (k,) are those of the directions of the other: the singular values, unless a
    metric says otherwise. `norms` are those of the updates that S is the sum of, as far as they are known.
    """

    s: Tensor
    x: Tensor
    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    lengths: Tensor
    flipped: bool
    energy: float
    bias: Tensor | None
    norms: tuple[float | None, ...] = ()

    def keep(self, rank: int) -> LowRank:
        """The first `rank` directions; the singular values are shared equally between b and a."""
        x, root = self.x[:, :rank], self.lengths[:rank] ** 0.5
        longer, shorter = x * root, x / root
        b, a = (shorter, longer.T) if self.flipped else (longer, shorter.T)
        for factor in reversed(self.left):
            b = factor @ b
        for factor in self.right:
            a = a @ factor
        return settled(b, a)


def settled(b: Tensor, a: Tensor) -> LowRank:
    """b a with the largest entry (the first of equals) of each column of b positive: same inputs, same bytes."""
    bounds = enumerate(zip(*(side.tolist() for side in extremes(b)), strict=True))
    negative = [-low > top or (-low == top and _begins_negative(b[:, j])) for j, (low, top) in bounds]
    sign = numbers([-1.0 if flip else 1.0 for flip in negative], b)
    b *= sign
    a *= sign[:, None]
    return LowRank(b=b, a=a)


def _begins_negative(column: Tensor) -> bool:
    return float(column[int(abs(column).argmax())]) < 0


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
        return _kept(updates)
    found = decompose(updates, metric)
    cut = truncate_decomposed(found, rule, ranks=ranks, shape=updates.shape)
    if cut.spectrum is not None and rule.choose(cut.spectrum, ranks) >= total:
        return replace(_kept(updates), spectrum=cut.spectrum)
    return cut


def truncate_decomposed(
    found: Decomposed, rule: RankRule, *, ranks: Sequence[int], shape: tuple[int, int]
) -> Truncated:
    """The leading directions of a decomposition of some (out, in), as many as `rule` names."""
    spectrum = tuple(found.s.tolist())
    rank = rule.choose(spectrum, ranks)
    lost = sum(value * value for value in reversed(spectrum[rank:]))
    delta = found.keep(rank) if spectrum else nothing(shape, found.s)
    error = (lost / found.energy) ** 0.5 if spectrum else 0.0
    norms = Norms(float((found.lengths[:rank] ** 2).sum()) ** 0.5, found.norms)
    return Truncated(replace(delta, bias=found.bias), error, spectrum, norms)


def decomposed_dense(total: Tensor, bias: Tensor | None = None, metric: Tensor | None = None) -> Decomposed:
    """The decomposition of a matrix (out, in) in float64 that is there as it is; else as `decompose`."""
    flipped = total.shape[0] > total.shape[1] and metric is None
    return _decomposed(_Gathered((), (total.T if flipped else total,), 0.0, bias), flipped, metric)


def decompose(deltas: Sequence[LowRank], metric: Tensor | None = None) -> Decomposed:
    """The singular value decomposition of Σ ΔWᵢ, unexpanded. Exact up to FLOOR; each update is loaded once.

    Sᵀ is taken where S has more rows than columns, so that `core` has the fewer. With a metric the values
    and directions are those of S C^½, and what is kept is the projection of S itself.
    """
    updates = Updates.of(deltas)
    out, in_ = updates.shape
    flipped = out > in_ and metric is None
    if sum(updates.ranks) >= min(out, in_):
        return _decomposed(_dense(updates, flipped), flipped, metric)
    units = _balanced(updates, flipped)
    if metric is None and len(units.to_b) <= GRAM_LIMIT and (found := _by_gram(units)):
        return _decomposed(found, flipped, None)
    return _decomposed(_by_qr(units), flipped, metric)


def _decomposed(gathered: _Gathered, flipped: bool, metric: Tensor | None) -> Decomposed:
    xp = namespace(gathered.core[-1])
    values, vectors = gathered.eigen or xp.linalg.eigh(gathered.gram(metric))
    squares = xp.flip(xp.clip(values, 0, None), (0,))
    s = xp.sqrt(squares)
    # What is left where updates cancel is rounding too, of the units that went in.
    rounding = 8 * EPS * gathered.sizes if metric is None else 0.0
    kept = int((s > max(FLOOR * float(s[0]), rounding)).sum()) if len(s) else 0
    s, x, energy = s[:kept], xp.flip(vectors, (1,))[:, :kept], bounded(float(squares.sum()))
    uneven = s if metric is None else lengths(x.T @ gathered.core[0], 1)
    left, right = gathered.lift, gathered.core
    if flipped:
        left, right = _transposed(right), _transposed(left)
    return Decomposed(s, x, left, right, uneven, flipped, energy, gathered.bias, gathered.norms)


def _transposed(factors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(factor.T for factor in reversed(factors))


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Σ ΔWᵢ (or its transpose) = (product of lift) · (product of core), the columns of the lift orthonormal.

    `sizes` is Σ |a||b| of all units. `eigen` are the eigenvalues and vectors of core · coreᵀ, where they follow
    from the units' Grams; so do `norms`, those of the updates.
    """

    lift: tuple[Tensor, ...]
    core: tuple[Tensor, ...]
    sizes: float
    bias: Tensor | None
    eigen: tuple[Tensor, Tensor] | None = None
    norms: tuple[float | None, ...] = ()

    def gram(self, metric: Tensor | None) -> Tensor:
        """core · (metric ·) coreᵀ."""
        (core,) = self.core
        measured = core if metric is None else core @ metric.to(core)
        return measured @ core.T


@dataclass(frozen=True, slots=True)
class _Balanced:
    """Σ ΔWᵢ (or its transpose) = (b · to_b) · (to_a · a), each unit with |b_j| = |a_j|, and their own Grams.

    Balanced, a large column of b that meets a small row of a does not hide the others.
    """

    b: Tensor
    a: Tensor
    to_b: Tensor
    to_a: Tensor
    outer: Tensor
    inner: Tensor
    sizes: float
    bias: Tensor | None
    norms: tuple[float | None, ...]


def _balanced(updates: Updates, flipped: bool) -> _Balanced:
    units = stored(updates)
    xp = namespace(units.b)
    b, a = (units.a.T, units.b.T) if flipped else (units.b, units.a)
    outer, inner = reversed(units.grams) if flipped else units.grams
    left, right = xp.sqrt(outer.diagonal()), xp.sqrt(inner.diagonal())
    sizes = left * right * abs(units.scale)
    living = sizes > 0
    to_b = xp.where(living, xp.sqrt(sizes) / xp.where(living, left, 1.0), 0.0)
    to_a = xp.where(living, xp.sqrt(sizes) / xp.where(living, right, 1.0), 0.0) * units.signs
    outer, inner = outer * to_b * to_b[:, None], inner * to_a * to_a[:, None]
    return _Balanced(b, a, to_b, to_a, outer, inner, bounded(float(sizes.sum())), units.bias, units.norms().each)


def _by_gram(units: _Balanced) -> _Gathered | None:
    """The orthonormal basis by eigenvectors; None where so much cancels that the Grams have lost the sum's digits."""
    xp = namespace(units.b)
    whiten, back, largest = _gram_basis(units.outer)
    values, vectors = xp.linalg.eigh(back @ units.inner @ back.T)
    # What the eigenvalues are off by is rounding of the largest that there could be; rows' sums bound that.
    reached = 4 * float(values.max()) / largest if len(values) else float("inf")
    if reached < float(abs(units.inner).sum(1).max()) and reached < float(xp.linalg.eigvalsh(units.inner).max()):
        return None
    lift, core = (units.b, units.to_b[:, None] * whiten), (back * units.to_a, units.a)
    return _Gathered(lift, core, units.sizes, units.bias, (values, vectors), units.norms)


def _by_qr(units: _Balanced) -> _Gathered:
    """The orthonormal basis by QR, which squares nothing."""
    q, r = namespace(units.b).linalg.qr(units.b * units.to_b)
    return _Gathered((q,), ((r * units.to_a) @ units.a,), units.sizes, units.bias, norms=units.norms)


def _dense(updates: Updates, flipped: bool) -> _Gathered:
    total, sizes, biases = None, 0.0, []
    for units in blocks(updates, BLOCK):
        a = units.a * units.scale[:, None]
        total = zeros(updates.shape, a) if total is None else total
        add_product(total, units.b, a)
        sizes += float((lengths(units.b, 0) * lengths(a, 1)).sum())
        biases += [] if units.bias is None else [units.bias]
    assert total is not None
    bias = namespace(biases[0]).stack(biases).sum(0) if biases else None
    return _Gathered((), (total.T if flipped else total,), sizes, bias)


def _gram_basis(gram: Tensor) -> tuple[Tensor, Tensor, float]:
    """(w, v, λ) with b = (b w) v, the columns of b w orthonormal, from b's Gram; its largest eigenvalue."""
    values, vectors = namespace(gram).linalg.eigh(gram)
    kept = values > EPS * values.max()
    root = values[kept] ** 0.5
    return vectors[:, kept] / root, root[:, None] * vectors[:, kept].T, float(values.max())


def _kept(updates: Updates) -> Truncated:
    """All units as they are, scales in b: a power of two, as scales mostly are, rounds nothing."""
    units = stored(updates)
    return Truncated(LowRank(b=units.b * units.scale, a=units.a, bias=units.bias), 0.0, norms=units.norms())
