"""Elementwise methods on matrices that are written out: what the engine feeds them, without factors."""

from __future__ import annotations

import torch

from loramerge.linalg.tiles import Stack
from loramerge.methods._method import MERGE, Context


def merged(name, stacked, weights=None, *, seed=0, data=None, **options):
    """(out, in) what a method makes of (n, out, in); weights are 1 unless said."""
    method = MERGE[name]
    tiles, chosen = Stack(stacked), method.options(**options)
    weights = (1.0,) * len(stacked) if weights is None else tuple(weights)
    context = Context("layer.0", weights, seed=seed, keys=tuple(range(len(stacked))), data=data or {})
    state = method.survey(tiles, chosen, context) if method.survey else None
    return method.apply(stacked.clone(), state, chosen, context, 0)


def normal(*sides, seed=0, dtype=torch.float64):
    """The same random numbers for the same call."""
    return torch.randn(*sides, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
