"""Fisher merging: entry by entry a mean weighted by how much each model's likelihood depends on the entry.

    M = Σ wᵢFᵢ ∘ ΔWᵢ / Σ wᵢFᵢ,   Fᵢ = fisher_outᵢ ⊗ fisher_inᵢ

with fisher_in (in,) the mean of x² over a model's inputs to the module and fisher_out (out,) that of the
squared gradient with respect to its outputs: the diagonal of the Fisher information as if the two were
independent. `loramerge stats` measures both.

Options
    normalize   true: each Fᵢ is divided by its mean first, so that no model counts for more as a whole
                because its gradients are larger

An entry on whose place no model depends (Σ wᵢFᵢ = 0) is the weighted mean Σ wᵢxᵢ / Σ wᵢ. Weights are 1/n
unless said; only their ratios matter, and they are meant to be positive. The publication's Fisher is the
mean of squared gradients of each parameter; the product of two means is an approximation of it that takes
out + in numbers instead of out · in. The result has full rank: what the cut to `--rank` costs is in the
report. LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each pass over row tiles.

Source: Matena and Raffel 2021, https://arxiv.org/abs/2111.09832
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.linalg.tiles import Stack, Tiles


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    normalize: bool = False


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> Sequence[tuple[Tensor, Tensor]]:
    """For each update wᵢ · fisher_out, by its mean and that of the other if so asked, and fisher_in."""
    found = []
    both = zip(context.data["fisher_out"], context.data["fisher_in"], strict=True)
    for weight, (out, in_) in zip(context.weights, both, strict=True):
        size = float(out.mean() * in_.mean()) if options.normalize else 1.0
        found.append((out * (weight / (size or 1.0)), in_))
    return found


def merge(
    tile: Tensor, state: Sequence[tuple[Tensor, Tensor]], options: Options, context: Context, start: int
) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    import torch

    above, below, mean = (torch.zeros(tile.shape[1:], dtype=torch.float64, device=tile.device) for _ in range(3))
    for part, weight, (out, in_) in zip(tile, context.weights, state, strict=True):
        fisher = torch.outer(out[start : start + len(part)], in_)
        above.addcmul_(fisher, part.double())
        below.add_(fisher)
        mean.add_(part, alpha=weight)
    mean.div_(sum(context.weights) or 1.0)
    return above.div_(below).where(below != 0, mean).to(tile.dtype)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2111.09832",
    on="entries",
    survey=survey,
    needs=("fisher_in", "fisher_out"),
    copies=6,
    breaks={
        "linearity": "the result is a mean: only the ratios of weights matter",
        "zero": "an update of zeros counts where its model's likelihood depends on the entry",
    },
)
