"""Consensus merging: the weighted sum where several updates find themselves in it (TALL masks).

Per module, with S = Σⱼ ΔWⱼ and entry by entry:

    maskᵢ = |ΔWᵢ| ≥ λ · |S − ΔWᵢ|
    M = Σᵢ wᵢΔWᵢ where at least k of the masks are 1, else 0

Options
    k     how many updates an entry must matter to. 1 drops what none uses, 2 also what one alone does
    lam   λ: larger values give smaller masks

S is the plain sum whatever the weights are, so that masks do not depend on how the result is scaled.
Weights are 1/n unless said; the publication scales the sum by a number found on validation data. There λ is
found in the same way for each task, among 0.2 … 0.6. An entry that is zero in all updates is not in
question, so ≥ and the reference code's > differ nowhere else but at ties. With fewer than k updates nothing
passes: a module that only one adapter has becomes zero for k = 2. The result has full rank: what the cut to
`--rank` costs is in the report. LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each pass over row tiles.

Source: Wang et al. 2024, https://arxiv.org/abs/2405.07813
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.errors import BadOption
from loramerge.methods import _entries
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    k: int = 2
    lam: float = 0.4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise BadOption(f"k is {self.k}, below 1.", hint="2")
        if not 0 <= self.lam < float("inf"):
            raise BadOption(f"lam is {self.lam}, not a number from 0 on.", hint="0.4")


def merge(tile: Tensor, state: None, options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    import torch

    total = tile.sum(0)
    users = torch.zeros_like(total)
    for part in tile:
        users.add_(part.abs().ge_((total - part).abs_().mul_(options.lam)))
    return _entries.weighted_sum(tile, context.weights).mul_(users.ge_(options.k))


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2405.07813",
    on="entries",
    breaks={"identity": "with one adapter no entry matters to a second (k = 2)"},
)
