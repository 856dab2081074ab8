"""Several updates in small coordinates: orthonormal bases that hold all of them.

    ΔWᵢ = left · coreᵢ · rightᵀ,    left (out, p) and right (in, q) with orthonormal columns, p, q ≤ Σ rᵢ

Sums, inner products, singular values and whatever else does not change under rotations are those of the
(p, q) cores. A rule on single entries does change: for that the basis has to be one that depends on the
updates alone ("updates") or on their factors ("factors"), and not on how it was computed ("any").

Units are brought to length one first, so that large ones do not hide small ones, and factorised by the
eigenvectors of their Gram matrix, which is twice as fast as QR; QR where they are nearly dependent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from loramerge.core.lowrank import LowRank, common_shape
from loramerge.linalg.measure import norm
from loramerge.linalg.truncate import GRAM_LIMIT
from loramerge.linalg.units import bounded, nothing

if TYPE_CHECKING:
    from torch import Tensor

Basis = Literal["any", "updates", "factors"]

_CONDITION = 1e-6
"""Eigenvalues of a Gram of unit vectors below this share of the largest: QR. The error of a basis from a Gram
is eps over that share, and meets coordinates as small as its root."""

_NOTHING = 1e-14
"""Up to this share of the largest eigenvalue directions are left out (1e-7 of a length, which is rounding where
factors are stored in float32 or less). Adapters that share rows of A are common, and need no QR then."""

_ROUNDING = 8
"""Times eps times Σ |b||a|: what is smaller is what rounding leaves where units cancel."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Updates in a joint basis. None for `left` or `right` is the whole space as it is.

    `cores` are the updates' coordinates, (p, q) each, kept as factors, scales folded in; in float64, but
    for the side that was left as it is. Numbers up to `rounding` are zero as far as can be known.
    """

    shape: tuple[int, int]
    left: Tensor | None
    right: Tensor | None
    cores: tuple[LowRank, ...]
    rounding: float

    @property
    def empty(self) -> bool:
        """Whether all updates are zero."""
        return 0 in self.cores[0].shape

    def dense(self) -> Tensor:
        """(n, p, q) the cores as matrices, in float64."""
        import torch

        return torch.stack([core.dense().double() for core in self.cores])

    def lift(self, core: Tensor | LowRank) -> LowRank:
        """left · core · rightᵀ in float64, with as few units as the core allows; what is rounding is zero."""
        if not isinstance(core, LowRank):
            core = core.double()
            # The longer side of a matrix is multiplied out, the shorter one's basis stays what it is.
            b, a = (None, core) if core.shape[0] <= core.shape[1] else (core, None)
            size = float(core.norm())
        else:
            size, b, a = norm(core), core.b.double() * core.scale, core.a.double()
        if size <= self.rounding:
            return nothing(self.shape)
        return LowRank(
            b=_lifted(self.left, b, self.shape[0]), a=_lifted(self.right, a if a is None else a.T, self.shape[1]).T
        )


@dataclass(frozen=True, slots=True)
class Triplets:
    """The singular value decomposition u · diag(s) · vᵀ, largest first: u (p, k), s (k,), v (q, k)."""

    u: Tensor
    s: Tensor
    v: Tensor

    def first(self, k: int | None) -> Triplets:
        """The first k triplets (all where k is None)."""
        return Triplets(self.u[:, :k], self.s[:k], self.v[:, :k])

    def outside(self, directions: Tensor, least: float = 0.0) -> Triplets:
        """The triplets above `least` of the matrix less its projection on some orthonormal directions (p, c)."""
        rest = self.u - directions @ (directions.T @ self.u)
        return triplets(LowRank(b=rest * self.s, a=self.v.T), least)

    def lowrank(self) -> LowRank:
        """The matrix, its singular values in b."""
        return LowRank(b=self.u * self.s, a=self.v.T)


def joint(updates: Sequence[LowRank], *, basis: Basis = "any", right: bool = True, drop: float = 0.0) -> Joint:
    """The updates in a joint basis that depends on what `basis` says.

    - "any": what was fastest
    - "updates": the updates alone. Left singular vectors of [ΔW₁ … ΔWₙ], right ones of [ΔW₁; …; ΔWₙ]
    - "factors": how they are written down. Left singular vectors of [B₁ … Bₙ], right ones of [A₁; …; Aₙ],
      with √|scale| in each

    Singular vectors come largest first, with the largest entry of each positive; those with values up to
    `drop` of the largest are left out, and where values are equal vectors are not determined. With `right`
    False only the left side changes coordinates, and cores (p, in) keep the rows of A and their type.

    Cost O((out + in) N² + N³), N = Σ rᵢ; no more is spanned than the whole space. Raises ShapeMismatch where
    the updates have different (out, in).
    """
    import torch

    shape = common_shape(updates)
    stacked = _Stacked.of(updates)
    narrow = all(torch.float64 not in (update.a.dtype, update.b.dtype) for update in updates)
    lefts = _span(stacked.b, narrow=narrow)
    rights = _span(stacked.a, narrow=narrow) if right else _Span(stacked.a)
    left, b = lefts.turned(_turn(lefts, rights, stacked, basis, stacked.lengths_b, drop))
    if right:
        basis_a, a = rights.turned(_turn(rights, lefts, stacked, basis, stacked.lengths_a, drop))
        cores = [LowRank(b=b[of].T * stacked.signed[of], a=a[of]) for of in stacked.members]
    else:
        basis_a, rows = None, stacked.rows.to(torch.promote_types(stacked.rows.dtype, torch.float32))
        b = b * (stacked.signed / stacked.lengths_a)[:, None]
        cores = [LowRank(b=b[of].T.to(rows.dtype), a=rows[of]) for of in stacked.members]
    return Joint(shape, left, basis_a, tuple(cores), stacked.rounding)


def triplets(matrix: Tensor | LowRank, least: float = 0.0) -> Triplets:
    """The singular triplets of a small matrix or update above `least`, in float64. Signs as they come."""
    import torch

    if isinstance(matrix, LowRank) and matrix.rank >= min(matrix.shape):
        matrix = matrix.dense()
    if isinstance(matrix, LowRank):
        q_b, r_b = torch.linalg.qr(matrix.b.double() * matrix.scale)
        q_a, r_a = torch.linalg.qr(matrix.a.T.double())
        u, s, vh = torch.linalg.svd(r_b @ r_a.T)
        u, v = q_b @ u, q_a @ vh.T
    else:
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        v = vh.T
    kept = int((s > least).sum())
    return Triplets(u[:, :kept], s[:kept], v[:, :kept])


def root(core: LowRank) -> Tensor:
    """(p, min(r, q)) X with X Xᵀ = core · coreᵀ."""
    import torch

    x: Tensor = (core.b * core.scale) @ torch.linalg.qr(core.a.T).R.T
    return x


@dataclass(frozen=True, slots=True)
class _Stacked:
    """Living units of all updates: b (N, out) and a (N, in) with rows of length one, signed · b aᵀ their products.

    `rows` are the rows of A as they are stored, `lengths_b` and `lengths_a` (N,) the lengths as they were,
    `scale` (N,) their updates' scales; `members` says where each update's units stand.
    """

    b: Tensor
    a: Tensor
    rows: Tensor
    lengths_b: Tensor
    lengths_a: Tensor
    scale: Tensor
    members: list[slice]

    @classmethod
    def of(cls, updates: Sequence[LowRank]) -> _Stacked:
        import torch

        flats = [update.plain() for update in updates]
        # Concatenated as they are stored: a conversion for each would touch four times the memory.
        b = torch.cat([flat.b.T for flat in flats]).double()
        rows = torch.cat([flat.a for flat in flats])
        a = rows.double()
        scale = torch.cat([b.new_full((flat.rank,), flat.scale) for flat in flats])
        lengths_b, lengths_a = torch.linalg.vector_norm(b, dim=1), torch.linalg.vector_norm(a, dim=1)
        sizes = scale * lengths_b * lengths_a
        bounded(float(sizes.abs().sum()))
        alive = sizes != 0
        counts = [int(part.sum()) for part in alive.split([flat.rank for flat in flats])]
        stops = list(accumulate(counts))
        members = [slice(stop - count, stop) for stop, count in zip(stops, counts, strict=True)]
        parts = (b, a, rows, lengths_b, lengths_a, scale)
        b, a, rows, lengths_b, lengths_a, scale = parts if bool(alive.all()) else (part[alive] for part in parts)
        return cls(b / lengths_b[:, None], a / lengths_a[:, None], rows, lengths_b, lengths_a, scale, members)

    @property
    def signed(self) -> Tensor:
        return self.scale * self.lengths_b * self.lengths_a

    @property
    def rounding(self) -> float:
        return _rounding(self.signed)


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows (N, side) = coords · mix · across; the rows of mix · across are orthonormal. None is one."""

    coords: Tensor
    mix: Tensor | None = None
    across: Tensor | None = None

    def turned(self, turn: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """(side, p) the basis, turned, and (N, p) the rows in it; no basis is the whole space as it is."""
        if turn is None:
            basis = _times(self.mix, self.across)
            return (None if basis is None else basis.T), self.coords
        basis = _times(_times(turn.T, self.mix), self.across)
        assert basis is not None
        if basis.numel():
            sign = (basis.amax(1) + basis.amin(1) < 0).to(basis.dtype) * -2 + 1
            basis, turn = basis * sign[:, None], turn * sign
        return basis.T, self.coords @ turn


def _span(rows: Tensor, *, narrow: bool = False) -> _Span:
    """An orthonormal basis for rows of length one; `narrow` rows were stored in float32 or less."""
    import torch

    count, side = rows.shape
    if count >= side or not count:
        return _Span(rows)
    if count <= GRAM_LIMIT:
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        alive = values > (_NOTHING if narrow else 0.0) * values[-1]
        values, vectors = values[alive], vectors[:, alive]
        if float(values[0]) > _CONDITION * float(values[-1]):
            root = values.sqrt()
            return _Span(vectors * root, (vectors / root).T, rows)
    q, r = torch.linalg.qr(rows.T)
    return _Span(r.T, None, q.T)


def _turn(span: _Span, other: _Span, stacked: _Stacked, basis: Basis, lengths: Tensor, drop: float) -> Tensor | None:
    """(dimension, p) the rotation from a span's basis to the one asked for, less the directions that are rounding."""
    import torch

    if not len(lengths):
        return span.coords.new_zeros(span.coords.shape[1], 0)
    if basis == "any":
        return None
    if basis == "factors":
        weights = lengths * stacked.scale.abs().sqrt()
        stack, rounding = span.coords.T * weights, _rounding(weights)
    else:
        # [ΔW₁ … ΔWₙ] has the left singular vectors of [B₁R₁ … BₙRₙ], where Aᵢ = Rᵢ times orthonormal rows.
        roots = [(of, _span(other.coords[of]).coords) for of in stacked.members if of.stop > of.start]
        stack = torch.cat([(span.coords[of].T * stacked.signed[of]) @ root for of, root in roots], dim=1)
        rounding = stacked.rounding
    u, s, _ = torch.linalg.svd(stack, full_matrices=False)
    turn: Tensor = u[:, : int((s > max(rounding, drop * float(s[0]))).sum())]
    return turn


def _lifted(basis: Tensor | None, coordinates: Tensor | None, side: int) -> Tensor:
    """(side, k) what has these coordinates in a basis; None is one."""
    import torch

    found = _times(basis, coordinates)
    return torch.eye(side, dtype=torch.float64) if found is None else found


def _rounding(sizes: Tensor) -> float:
    import torch

    return _ROUNDING * torch.finfo(sizes.dtype).eps * float(sizes.abs().sum())


def _times(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    """x · y, where None is one."""
    return y if x is None else (x if y is None else x @ y)
