"""Rules that methods share which merge in a joint basis: on cores (p, q), from n of them to one.

A rule takes what `linalg.joint` found and returns the merged core with what the report should say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

from loramerge.errors import BadOption
from loramerge.methods import _entries, _weighing
from loramerge.methods._method import Context, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Basis, Joint, Triplets

Entrywise = Literal["linear", "ties", "dare", "dare-ties"]

_HELD = 64 * 2**20
"""Entries of cores up to this size are held, which is faster; more pass by in tiles."""

_SAME = 1e-6
"""Directions of different tasks that are this close count as one: float32 keeps no more of them."""


class Dimension(Protocol):
    """Options of a method that decides how many directions its result has."""

    @property
    def k(self) -> int | None:
        """How many; None: as many as the task of largest rank has."""


def check_least(name: str, value: float | None, least: float = 1) -> None:
    """Raises BadOption for a number below `least`, or none at all."""
    if value is not None and not value >= least:
        raise BadOption(f"{name} is {value}, below {least}.", hint=f"{least} or more")


def bound(options: Dimension, ranks: Sequence[int]) -> int:
    """The rank of a method that has k directions: k, or the largest rank."""
    return options.k or max(ranks)


def merged(
    updates: Sequence[LowRank],
    context: Context,
    rule: Callable[[Joint], tuple[Tensor | LowRank, Mapping[str, Any]]],
    *,
    basis: Basis = "any",
    right: bool = True,
    drop: float = 0.0,
    weigh: bool = True,
) -> Outcome:
    """Weights first (unless the rule does that itself), then the rule in a joint basis; biases have their weights."""
    from loramerge.linalg.joint import joint
    from loramerge.linalg.units import nothing, total_bias

    parts = _weighing.weighted(updates, context)
    found = joint(parts if weigh else updates, basis=basis, right=right, drop=drop)
    core, report = (None, {}) if found.empty else rule(found)
    delta = nothing(found.shape) if core is None else found.lift(core)
    return Outcome([replace(delta, bias=total_bias(parts))], report)


def entrywise(cores: Sequence[LowRank], rule: Entrywise, density: float, context: Context) -> Tensor:
    """(p, q) what a rule on single entries makes of the cores, weights being in them already.

    linear: the sum. ties: each core's `density` share of entries largest in size, then the mean of those that
    have the sign of the sum. dare: the sum of entries kept with probability `density`, divided by it.
    dare-ties: the mean of such entries that have the sign of their sum.
    """
    from loramerge.linalg.tiles import Blocks, Tiles

    def rows(start: int, tile: Tensor) -> Tensor:
        if rule.startswith("dare"):
            tile = _entries.drop(tile, density, context, start).div_(density)
        elif least is not None:
            tile = _entries.trim(tile, least)
        return _entries.elect_and_average(tile, ones) if rule.endswith("ties") else tile.sum(0)

    ones, trims = [1.0] * len(cores), rule == "ties" and density < 1
    tiles = Tiles(cores)
    held = tiles.stack() if tiles.count * prod(tiles.shape) * tiles.dtype.itemsize <= _HELD else None
    least = _entries.thresholds(held or tiles, density) if trims else None
    return rows(0, held.stacked) if held else Blocks(tiles, rows).dense()


def tasks(found: Joint, k: int | None = None) -> list[Triplets]:
    """The first k singular triplets of each core (all without k), less those of rounding: zero updates have none."""
    from loramerge.linalg.joint import triplets

    return [triplets(core, found.rounding).first(k) for core in found.cores]


def total(found: Joint) -> Tensor:
    """(p, q) the sum of the cores."""
    from loramerge.core.lowrank import cat

    return cat(found.cores).dense()


def largest_rank(parts: Sequence[Triplets]) -> int:
    """The largest of the tasks' ranks."""
    return max(len(part.s) for part in parts)


def whitened(parts: Sequence[Triplets]) -> tuple[Tensor, Tensor, Tensor]:
    """(u, s, v) the parts' triplets side by side, all directions made orthogonal to one another.

    U = [U₁ … Uₙ] becomes U (UᵀU)^(−½), the closest matrix with orthonormal columns, and V alike; the inverse
    is the pseudo-inverse, so that tasks which share a direction share it afterwards.
    """
    import torch

    u, v = (_polar(torch.cat([getattr(part, side) for part in parts], dim=1)) for side in ("u", "v"))
    return u, torch.cat([part.s for part in parts]), v


def _polar(columns: Tensor) -> Tensor:
    from loramerge.linalg.joint import triplets

    found = triplets(columns)
    kept = int((found.s > _SAME * found.s.max()).sum()) if len(found.s) else 0
    polar: Tensor = found.u[:, :kept] @ found.v[:, :kept].T
    return polar


def tsv(found: Joint, k: int | None) -> LowRank:
    """Singular vectors of all tasks, k of each, whitened; with the singular values as they were."""
    from loramerge.core.lowrank import LowRank

    u, s, v = whitened(tasks(found, k))
    return LowRank(b=u * s, a=v.T)


def iso(found: Joint, k: int | None) -> LowRank:
    """The first k singular directions of the sum, all with the mean of their singular values.

    Without k, as many as the task of largest rank has.
    """
    from loramerge.linalg.joint import Triplets, triplets

    kept = triplets(total(found), found.rounding).first(largest_rank(tasks(found)) if k is None else k)
    return Triplets(kept.u, kept.s.mean().expand_as(kept.s), kept.v).lowrank()
