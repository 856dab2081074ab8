"""DELLA: drop entries at random, small ones more often, rescale the rest, elect a sign, average.

Per module and update, r ∈ [0, 1] being the place of |x| among the magnitudes of its row (0 the smallest):

1. drop: x stays with probability p = density − epsilon + 2 · epsilon · r and becomes x / p, else zero
2. elect: s = sign(Σᵢ wᵢxᵢ), +1 where the sum is zero
3. fuse: Σ wᵢxᵢ over those with sign(wᵢxᵢ) = s, divided by the sum of their |wᵢ|

Options
    density   the mean probability that an entry is kept, in (0, 1]
    epsilon   how far p goes to either side of it: density ± epsilon must lie within [0, 1]. With 0 this
              is DARE-TIES with weights before the vote
    rescale   expectation: 1 / p, as published. norm: what gives each update its Σ|x| back (mergekit's). none: 1
    elect     total: as above. frequency: the sign of the sum of signs. none: 2 and 3 are left out and the
              result is Σ wᵢxᵢ (mergekit's della_linear)

At density 1 nothing is dropped, whatever epsilon is. Equal magnitudes are ranked in any order, and a row of
one entry has r = 0. Masks are drawn as those of `dare`. Weights are 1/n unless said, which for the vote is a
plain mean of those that agree. The result has full rank: what the cut to `--rank` costs is in the report.
LoRA's own biases are added with their weights.

Gauge: ΔW is what is masked, but masks are drawn by the content of the factors (see `dare`).
Cost: O(n · out · in log in) for each pass over row tiles, one more under rescale=norm.

Source: Deep et al. 2024, https://arxiv.org/abs/2406.11617; its reference code is mergekit's, which rescales
by norm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loramerge.errors import BadOption
from loramerge.methods import _entries
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.linalg.tiles import Stack, Tiles


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.5
    epsilon: float = 0.1
    rescale: Literal["expectation", "norm", "none"] = "expectation"
    elect: Literal["total", "frequency", "none"] = "total"

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.5")
        widest = min(self.density, 1 - self.density) if self.density < 1 else float("inf")
        if not 0 <= self.epsilon <= widest:
            raise BadOption(
                f"epsilon is {self.epsilon}, which takes density {self.density} out of [0, 1].",
                hint=f"at most {widest:g}",
            )


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> Sequence[float]:
    """(n,) factors that restore Σ|x|; none where each entry has its own."""
    if options.rescale != "norm":
        return [1.0] * tiles.count
    return _entries.l1_ratios(tiles, lambda start, tile: _dropped(tile, options, context, start))


def merge(tile: Tensor, state: Sequence[float], options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    kept = _entries.scaled(_dropped(tile, options, context, start), state)
    if options.elect == "none":
        return _entries.weighted_sum(kept, context.weights)
    return _entries.elect_and_average(kept, context.weights, sign=options.elect, weigh="before")


def _dropped(tile: Tensor, options: Options, context: Context, start: int) -> Tensor:
    """The tile with entries dropped, the others divided by their probability if so asked; in place."""
    if options.density == 1.0:
        return tile
    for at, part in enumerate(tile):
        probability = keep_probability(part, options.density, options.epsilon)
        part.mul_(_entries.uniform(context, at, start, *part.shape).to(part.device).lt_(probability).to(part))
        if options.rescale == "expectation":
            # Where nothing can be kept there is nothing to rescale.
            part.div_(probability.masked_fill_(probability == 0, 1.0))
    return tile


def keep_probability(rows: Tensor, density: float, epsilon: float) -> Tensor:
    """(rows, in) in float64: density − epsilon for the smallest magnitude of each row, + epsilon for the largest."""
    import numpy as np
    import torch

    # numpy sorts five times as fast.
    order = torch.from_numpy(np.argsort(rows.abs().cpu().numpy(), axis=1))
    ladder = torch.linspace(density - epsilon, density + epsilon, rows.shape[1], dtype=torch.float64)
    return torch.empty(rows.shape, dtype=torch.float64).scatter_(1, order, ladder.expand(rows.shape)).to(rows.device)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2406.11617",
    on="entries",
    survey=survey,
    random=True,
    breaks={
        "identity": "drops entries of a lone adapter too",
        "idempotence": "drops, as identity",
        "gauge": "masks are drawn by the content of the factors",
        "linearity": "weights take part in the vote and in the mean",
    },
)
