"""Reassembly of units: all of them made orthogonal to one another, and the weightiest directions kept.

With sᵢⱼ, uᵢⱼ, vᵢⱼ the singular triplets of wᵢΔWᵢ, all side by side, X⊥ = X (XᵀX)^(−½) and N triplets in all,

    whole = U⊥ S V⊥ᵀ,    share = U⊥ R V⊥ᵀ,    Rᵢⱼ = sᵢⱼ / ‖ΔWᵢ‖^balance

what is kept is P Pᵀ · whole, P the first k left singular vectors of `share`. Of triplets that are linearly
independent U⊥ and V⊥ have orthonormal columns, so that these are k of the N turned triplets, each as it is;
of triplets that coincide (n copies of an adapter) it is what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.core.lowrank import LowRank
from loramerge.linalg.joint import triplets
from loramerge.linalg.measure import norm
from loramerge.methods import _inner

if TYPE_CHECKING:
    from loramerge.linalg.joint import Joint

_NONE = 1e-6
"""Directions with a share below this part of the largest are what rounding leaves of coinciding ones."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was kept, the length of the whole over its length, how many triplets each update brought and has left.

    A direction that several updates share counts for the one with most of it.
    """

    core: LowRank
    shortened: float
    ranks: tuple[int, ...]
    left: tuple[int, ...]


def select(found: Joint, weights: Sequence[float], k: int, balance: float) -> Selection:
    """The k directions of the cores (weights are in them) with the largest shares; fewer where there are fewer."""
    import torch

    parts = _inner.tasks(found)
    u, s, v = _inner.whitened(parts)
    sizes = [float(part.s.norm()) / abs(w) if len(part.s) else 1.0 for part, w in zip(parts, weights, strict=True)]
    shares = torch.cat([part.s / size**balance for part, size in zip(parts, sizes, strict=True)])
    ranked = triplets(LowRank(b=u * shares, a=v.T))
    kept = ranked.first(min(k, int((ranked.s > _NONE * ranked.s[0]).sum()))).u
    on = kept.T @ u
    core = LowRank(b=kept, a=(on * s) @ v.T)
    ranks = tuple(len(part.s) for part in parts)
    owner = torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks)).to(on.device)
    held = on.square() @ torch.nn.functional.one_hot(owner, len(ranks)).to(on)
    left = held.argmax(1).bincount(minlength=len(ranks)).tolist()
    return Selection(core, norm(LowRank(b=u * s, a=v.T)) / norm(core), ranks, tuple(left))
