"""Updates written out as matrices, and merges of them as the engine makes them: for methods in a joint basis."""

from __future__ import annotations

import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context


def matrix(*rows):
    """The update that is this matrix."""
    a = torch.tensor(rows, dtype=torch.float64)
    return LowRank(b=torch.eye(len(rows), dtype=torch.float64), a=a)


def diagonal(*entries):
    """The update that is diagonal."""
    return matrix(*torch.diag(torch.tensor(entries, dtype=torch.float64)).tolist())


def rotation(side, seed=0):
    """Some orthogonal matrix."""
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(side, side, generator=draw, dtype=torch.float64)).Q


def outcome(name, updates, weights=None, *, seed=0, **options):
    """What a method makes of updates; weights are 1 unless said."""
    weights = (1.0,) * len(updates) if weights is None else tuple(weights)
    return apply(MERGE[name], updates, MERGE[name].options(**options), Context("layer.0", weights, seed=seed))


def merged(name, updates, weights=None, **options):
    """The same as an (out, in) matrix."""
    return outcome(name, updates, weights, **options).dense()


def ties(stacked, density):
    """TIES of (n, …) by its definition."""
    kept = []
    for part in stacked:
        sizes = part.abs().flatten().sort(descending=True).values
        kept.append(part * (part.abs() >= sizes[max(1, int(density * part.numel())) - 1]))
    kept = torch.stack(kept)
    elected = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
    agrees = kept * elected > 0
    return (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def polar(columns):
    """The closest matrix with orthonormal columns."""
    u, _, vh = torch.linalg.svd(columns, full_matrices=False)
    return u @ vh
