"""TIES: trim small entries, elect a sign, average those that agree.

Per module, with the entries x₁ … xₙ of the updates at one place:

1. trim: of each ΔWᵢ the `density` share of entries largest in size stays, the rest becomes zero
2. elect: s = sign(Σᵢ xᵢ), +1 where the sum is zero
3. merge: Σ wᵢxᵢ over those with sign(xᵢ) = s, divided by how many they are

Options
    density   share of the entries of each update that survive trimming, in (0, 1]
    sign      total: the sign of the sum, as published. frequency: of the sum of signs
    weigh     after: the weights enter in 3 only (PEFT). before: they multiply the updates before 2, and 3
              divides by the sum of the agreeing weights (mergekit's, with its `normalize`)

The threshold is exact and per module and adapter, as the publication has it per tensor; equal magnitudes
at the threshold all survive. Weights are 1 unless said. The result has full rank: what the cut to `--rank`
costs is in the report. LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each of five passes over row tiles of the
updates, none of which is larger than a few megabytes.

Source: Yadav et al. 2023, https://arxiv.org/abs/2306.01708
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loramerge.methods import _entries
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.linalg.tiles import Stack, Tiles


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.2
    sign: Literal["total", "frequency"] = "total"
    weigh: Literal["after", "before"] = "after"

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.2, the value of the publication")


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> Tensor:
    """(n,) the least magnitude that survives, per update."""
    return _entries.thresholds(tiles, options.density)


def merge(tile: Tensor, state: Tensor, options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    return _entries.elect_and_average(
        _entries.trim(tile, state), context.weights, sign=options.sign, weigh=options.weigh
    )


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2306.01708",
    on="entries",
    survey=survey,
    weights="sum",
    breaks={
        "identity": "trims a lone adapter too",
        "idempotence": "trims, as identity",
    },
)
