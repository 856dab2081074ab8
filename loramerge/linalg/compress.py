"""The best low-rank approximation of a matrix that comes by in row blocks.

With M of shape (out, in) and Z an orthonormal basis (in, l) of its leading right singular space, M Z Zᵀ
is within about a ten-thousandth of the best approximation of that rank once Z has gone through Σ Mₜᵀ(Mₜ Z) a few
times (subspace iteration; one pass over the blocks each). What is lost is measured either way: ‖M − M Z Zᵀ‖
block by block, since ‖M‖² − ‖M Z‖², the same in exact arithmetic, would be rounding where little is lost.

Source: Halko, Martinsson & Tropp 2011, https://arxiv.org/abs/0909.4061, algorithm 4.4 with re-orthogonalisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from loramerge.linalg.ranks import RankRule
    from loramerge.linalg.tiles import Blocks
    from loramerge.linalg.truncate import Truncated

    Passes = Iterable[tuple[int, Tensor]]

EXACT_SIDE = 512
"""Up to this min(out, in) the singular value decomposition is that of the whole matrix."""

OVERSAMPLE = 16
PASSES = 4


def compress(
    blocks: Blocks,
    rule: RankRule,
    *,
    ranks: Sequence[int],
    bias: Tensor | None = None,
    hold: bool = True,
    metric: Tensor | None = None,
) -> Truncated:
    """The closest update to the matrix of the rank that `rule` names; `relative_error` is what that cost.

    Exact where min(out, in) ≤ EXACT_SIDE, where the rule needs the whole spectrum (energy, elbow, sv-…) and
    where there is a metric (see `truncate_sum`); else by PASSES rounds of subspace iteration with OVERSAMPLE
    further directions. `hold` keeps the matrix in memory once it is computed, in its own type; without it
    the blocks are computed again on each pass.
    The result has the same bytes either way. Time O(out · in · (rank + OVERSAMPLE)) for each pass, or
    O(out · in · min(out, in)); memory O((out + in) · (rank + OVERSAMPLE)), and O(out · in) when held or exact.
    """
    import torch

    from loramerge.linalg.truncate import decomposed_dense, truncate_decomposed

    out, in_ = blocks.shape
    asked = rule.asked(ranks)
    if asked is None or metric is not None or is_exact(rule, ranks, blocks.shape):
        found = decomposed_dense(_whole(blocks, torch.float64), bias, metric)
        return truncate_decomposed(found, rule, ranks=ranks, shape=(out, in_))
    held: Passes = _kept(blocks) if hold else blocks
    z = _start(held, in_, asked + OVERSAMPLE)
    for _ in range(PASSES):
        z = _orthonormal(_round(held, z))
    return _projected(held, z, asked, bias)


def is_exact(rule: RankRule, ranks: Sequence[int], shape: tuple[int, int]) -> bool:
    """Whether a matrix of this shape is decomposed as a whole, there being no metric."""
    asked = rule.asked(ranks)
    return asked is None or min(shape) <= max(EXACT_SIDE, asked + OVERSAMPLE)


def _kept(blocks: Blocks) -> Passes:
    """The same blocks as parts of one matrix: kept by themselves they would lie between what comes and goes."""
    whole, height = _whole(blocks, blocks.dtype), blocks.tiles.height
    return [(start, whole[start : start + height]) for start in range(0, len(whole), height)]


def _whole(blocks: Blocks, dtype: dtype) -> Tensor:
    import torch

    whole: Tensor | None = None
    for start, block in blocks:
        whole = torch.empty(blocks.shape, dtype=dtype, device=block.device) if whole is None else whole
        whole[start : start + len(block)] = block
    assert whole is not None
    return whole


def _start(held: Passes, in_: int, width: int) -> Tensor:
    """A fixed random basis: the same for every matrix with so many columns."""
    import torch

    draw = torch.Generator().manual_seed(0)
    device = next(iter(held))[1].device
    return _orthonormal(torch.randn(in_, width, generator=draw, dtype=torch.float64).to(device))


def _round(held: Passes, z: Tensor) -> Tensor:
    """Mᵀ M z, block by block in the blocks' type, summed in float64."""
    import torch

    total = torch.zeros_like(z)
    narrow: Tensor | None = None
    for _, block in held:
        narrow = z.to(block.dtype) if narrow is None else narrow
        total += (block.T @ (block @ narrow)).to(torch.float64)
    return total


def _orthonormal(z: Tensor) -> Tensor:
    import torch

    basis: Tensor = torch.linalg.qr(z).Q
    return basis


def _projected(held: Passes, z: Tensor, rank: int, bias: Tensor | None) -> Truncated:
    import torch

    from loramerge.linalg.truncate import FLOOR, Truncated, settled
    from loramerge.linalg.units import nothing

    parts, energy, outside = [], 0.0, 0.0
    narrow: Tensor | None = None
    for _, block in held:
        narrow = z.to(block.dtype) if narrow is None else narrow
        part = block @ narrow
        parts.append(part.to(torch.float64))
        energy += _square(block)
        outside += _square(torch.addmm(block, part, narrow.T, alpha=-1.0))
    y = torch.cat(parts)
    if energy == 0.0:
        return Truncated(replace(nothing((len(y), len(z))), bias=bias), 0.0)
    values, vectors = torch.linalg.eigh(y.T @ y)
    squares = values.flip(0).clamp(min=0)
    s = squares[:rank].sqrt()
    alive = int((s > FLOOR * s[0]).sum())
    s, w = s[:alive], vectors.flip(1)[:, :alive]
    root = s.sqrt()
    lost = (outside + float(squares[alive:].sum())) / energy
    delta = settled((y @ w) / root, root[:, None] * (z @ w).T)
    return Truncated(replace(delta, bias=bias), lost**0.5, tuple(s.tolist()))


def _square(block: Tensor) -> float:
    """‖block‖² in float64."""
    import torch

    return float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
