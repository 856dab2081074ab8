"""Exact measurements of updates from their factors, in float64; no (out, in) matrix unless factors are larger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from loramerge.core.arrays import namespace
from loramerge.core.lowrank import LowRank, cat
from loramerge.core.updates import Updates
from loramerge.linalg.stored import root_of_sum
from loramerge.linalg.units import pool

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 1024
"""Units of which all pairs of products are held at once."""


def singular_values(delta: LowRank) -> Tensor:
    """(min(out, in, r),) the singular values of ΔW, largest first.

    b = Q_b R_b and aᵀ = Q_a R_a, so they are those of R_b R_aᵀ; nothing is squared, so small ones are
    right to eps · s₁. Cost O((out + in) r² + r³).
    """
    import torch

    values: Tensor = torch.linalg.svdvals(_core(delta))
    return values


def norm(delta: LowRank) -> float:
    """‖ΔW‖ in Frobenius norm, right also where units cancel. Cost O((out + in) r²), at most O(out · in · r)."""
    # Folding the scale into the factors would copy them.
    flat = LowRank(delta.b, delta.a, mid=delta.mid).exact().plain()
    return abs(delta.scale) * _unscaled_norm(flat)


def _unscaled_norm(flat: LowRank) -> float:
    if flat.rank >= min(flat.shape):
        return _size(flat.dense())
    found = root_of_sum((flat.b.T @ flat.b) * (flat.a @ flat.a.T))
    # QR squares nothing.
    return _size(_core(flat)) if found is None else found


def _size(matrix: Tensor) -> float:
    return float(namespace(matrix).linalg.norm(matrix))


def inner(x: LowRank, y: LowRank) -> float:
    """⟨X, Y⟩ = Σ (b_xᵀ b_y) ∘ (a_x a_yᵀ) in Frobenius inner product. Cost O((out + in) r_x r_y)."""
    left, right = _exact(x), _exact(y)
    return float(((left.b.T @ right.b) * (left.a @ right.a.T)).sum())


def gram(deltas: Sequence[LowRank]) -> Tensor:
    """(n, n) all inner products of n updates of one shape. Cost O((out + in) N²), N = Σ rᵢ.

    Two groups of at most GROUP units are held at a time; updates that load when they are asked for are loaded
    once for each pair of groups they are in.
    """
    import torch

    updates = Updates.of(deltas)
    found = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    groups = list(_groups(updates.ranks))
    for number, left in enumerate(groups):
        x = pool(updates[left])
        for right in groups[number:]:
            y = x if right is left else pool(updates[right])
            block = _by_owner(_by_owner((x.a @ y.a.T) * (x.b @ y.b.T), x.owner).T, y.owner).T.cpu()
            found[left, right], found[right, left] = block, block.T
    return found


def _groups(ranks: Sequence[int]) -> Iterator[slice]:
    """Slices of consecutive updates of at most GROUP units together, or of a single one."""
    start = units = 0
    for at, rank in enumerate(ranks):
        if units and units + rank > GROUP:
            yield slice(start, at)
            start, units = at, 0
        units += rank
    yield slice(start, len(ranks))


def _by_owner(rows: Tensor, owner: Tensor) -> Tensor:
    """The rows of each owner added up."""
    return rows.new_zeros(int(owner.max()) + 1, rows.shape[1]).index_add_(0, owner, rows)


def relative_error(got: LowRank, want: Sequence[LowRank]) -> float:
    """‖got − Σ wantᵢ‖ / ‖Σ wantᵢ‖, as exact where the difference is tiny as where it is not.

    The difference is measured as an update of its own, not by expanding squares. 0 where both are
    zero, inf where only the wanted is. Biases are not looked at.
    """
    off = norm(cat([_exact(got), *(_exact(delta.times(-1.0)) for delta in want)]))
    size = norm(cat([_exact(delta) for delta in want]))
    return off / size if size > 0 else (0.0 if off == 0 else float("inf"))


def unit_norms(delta: LowRank) -> Tensor:
    """(r,) |scale| · |a_j| · |b_j|: how large each rank-one unit's product is, in the order they are stored."""
    return pool([delta]).sizes()


def effective_rank(spectrum: Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy & Vetterli 2007); 0 for ΔW = 0."""
    import torch

    total = spectrum.sum()
    if not float(total) > 0:
        return 0.0
    return float(torch.special.entr(spectrum / total).sum().exp())


def numerical_rank(spectrum: Tensor, shape: tuple[int, int]) -> int:
    """How many singular values stand above what rounding to float32 leaves: s₁ · max(out, in) · eps."""
    import torch

    if not spectrum.numel():
        return 0
    return int((spectrum > spectrum.max() * max(shape) * torch.finfo(torch.float32).eps).sum())


def _core(delta: LowRank) -> Tensor:
    flat = _exact(delta)
    qr = namespace(flat.b).linalg.qr
    core: Tensor = qr(flat.b).R @ qr(flat.a.T).R.T
    return core


def _exact(delta: LowRank) -> LowRank:
    return LowRank(b=delta.b, a=delta.a, scale=delta.scale, mid=delta.mid).exact().folded()
