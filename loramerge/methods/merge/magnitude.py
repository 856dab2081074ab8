"""magnitude: the weighted sum of what is largest in each update.

    M = Σ wᵢ · top(ΔWᵢ),   top keeps the `density` share of the entries of a matrix largest in size

Options
    density   share of the entries of each update that are kept, in (0, 1]

The first step of TIES without the vote: PEFT's `magnitude_prune`, on ΔW instead of on A and B. The
threshold is exact and per module and adapter; equal magnitudes at the threshold all survive, where PEFT
keeps an arbitrary choice of them. Weights are 1/n unless said. The result has full rank: what the cut to
`--rank` costs is in the report. LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each of a few passes over row tiles.

Source: magnitude pruning of updates, as in Yadav et al. 2023, https://arxiv.org/abs/2306.01708
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.methods import _entries
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.linalg.tiles import Stack, Tiles


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.5

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.5")


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> Tensor:
    """(n,) the least magnitude that survives, per update."""
    return _entries.thresholds(tiles, options.density)


def merge(tile: Tensor, state: Tensor, options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    return _entries.weighted_sum(_entries.trim(tile, state), context.weights)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2306.01708",
    on="entries",
    survey=survey,
    breaks={
        "identity": "prunes a lone adapter too",
        "idempotence": "prunes, as identity",
    },
)
