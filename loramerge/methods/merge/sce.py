"""SCE: select entries that vary, calculate weights from what is left, erase minority signs.

Per module, with the entries x₁ … xₙ of the updates at one place:

1. select: of the entries whose variance over the updates is not zero, the `select` share with the largest
   variance stays, in all updates alike
2. calculate: vᵢ = wᵢ · Σ x² over all entries of update i that stay
3. erase: s = sign(Σᵢ xᵢ), +1 where the sum is zero; the result is Σ vᵢxᵢ over those with sign(xᵢ) = s,
   divided by the sum of their |vᵢ|

Options
    select   share of the varying entries that stay, in (0, 1]; 1 leaves the first step out (mergekit's default)

At least one entry stays, and where no entry varies (one update, or copies of one) all do; mergekit makes
such a tensor zero. Equal variances at the threshold all survive. Weights multiply those of step 2, so only
their ratios matter. An adapter without the module counts as an update of zero: it takes part in the
variance. The result has full rank: what the cut to `--rank` costs is in the report. LoRA's own biases are
added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each of about six passes over row tiles.

Source: Wan et al. 2024 (FuseChat), https://arxiv.org/abs/2408.07990; the variance is the population's and
the vote unweighted, as in mergekit, which the authors refer to. The publication's share was not verified.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    select: float = 0.1

    def __post_init__(self) -> None:
        _entries.check_share("select", self.select, "0.1")


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> tuple[float, Sequence[float]]:
    """The least deviation that is selected, and the weight of each update."""
    least = _threshold(tiles, options.select)
    energies = _entries.totals(tiles, lambda start, tile: _selected(tile, least).double().square_())
    return least, [weight * energy for weight, energy in zip(context.weights, energies.tolist(), strict=True)]


def merge(tile: Tensor, state: tuple[float, Sequence[float]], options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    least, weights = state
    # Only their ratios count, and squares of small or large numbers do not fit into float32.
    largest = max(map(abs, weights)) or 1.0
    weights = [weight / largest for weight in weights]
    return _entries.mean_of_agreeing(_selected(tile, least), weights, [abs(weight) for weight in weights])


def _threshold(tiles: Tiles | Stack, select: float) -> float:
    """The least deviation among the share of them that stays; 0 where all do."""
    from loramerge.linalg.select import kth_magnitudes
    from loramerge.linalg.tiles import Blocks

    if select == 1.0:
        return 0.0
    varying = sum(int(_deviation(tile).count_nonzero()) for _, tile in tiles)
    if not varying:
        return 0.0
    deviations = Blocks(tiles, lambda start, tile: _deviation(tile)[None])
    return float(kth_magnitudes(deviations, [max(1, int(select * varying))]))


def _deviation(tile: Tensor) -> Tensor:
    """(rows, in) the root of the population variance over the updates: exactly zero for equal ones."""
    offsets = tile.double() - tile[0]
    mean = offsets.mean(0).square_()
    return offsets.square_().mean(0).sub_(mean).clamp_(min=0.0).sqrt_().to(tile.dtype)


def _selected(tile: Tensor, least: float) -> Tensor:
    """The tile with entries that vary less set to zero, in place."""
    return tile.mul_(_deviation(tile).ge_(least)) if least > 0 else tile


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2408.07990",
    on="entries",
    survey=survey,
    copies=4,
    breaks={
        "linearity": "the result is a mean: only the ratios of weights matter",
        "zero": "an update of zeros takes part in the variance",
    },
)
