"""MagMax: at each place the entry largest in size.

    M = wₘxₘ,   m = argmaxᵢ |wᵢxᵢ|,   x₁ … xₙ the entries of the updates at one place

Where two of opposite sign are equally large, the positive one is taken. Weights are 1 unless said and
multiply the updates before they are compared; the publication scales the result by a number found on
validation data (`--scale`). The result has full rank: what the cut to `--rank` costs is in the report.
LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each pass over row tiles.

Source: Marczak et al. 2024, https://arxiv.org/abs/2407.06322
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.methods import _entries
from loramerge.methods._method import Context, Method
from loramerge.methods._weighing import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def merge(tile: Tensor, state: None, options: NoOptions, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    weighted = _entries.scaled(tile, context.weights)
    highest, lowest = weighted.amax(0), weighted.amin(0)
    return highest.where(highest >= -lowest, lowest)


METHOD = Method(
    merge,
    NoOptions,
    source="https://arxiv.org/abs/2407.06322",
    on="entries",
    weights="sum",
    breaks={"linearity": "weights decide which entry is the largest"},
)
