"""Model Breadcrumbs: the weighted sum of the updates without their largest and smallest entries.

    M = Σ wᵢ · crumbs(ΔWᵢ)

crumbs drops the `gamma` share of the entries of a matrix largest in size, then the smallest ones, until
the `density` share is left. Where gamma + density exceeds 1, fewer of the largest are dropped.

Options
    density   share of the entries of each update that are kept, in (0, 1]
    gamma     share of the largest that are dropped, in [0, 1)

Thresholds are exact, per module and adapter; equal magnitudes at a threshold all survive. The options have
mergekit's names and defaults of our own; the publication's percentiles β and γ are 1 − gamma − density and
1 − gamma (its values were not verified). mergekit's breadcrumbs keep nothing at gamma 0; here that is
`magnitude`. Its breadcrumbs_ties are not here: `ties` has the vote. Weights are 1/n unless said. The result
has full rank: what the cut to `--rank` costs is in the report. LoRA's own biases are added with their weights.

Gauge: depends on the updates alone. Cost: O(n · out · in) for each of a few passes over row tiles.

Source: Davari and Belilovsky 2023, https://arxiv.org/abs/2312.06795
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    gamma: float = 0.01

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.5")
        if not 0 <= self.gamma < 1:
            raise BadOption(f"gamma is {self.gamma}, outside [0, 1).", hint="0.01")


def survey(tiles: Tiles | Stack, options: Options, context: Context) -> tuple[Tensor, Tensor]:
    """(n,) the least and the largest magnitude that survives, per update."""
    count = tiles.shape[0] * tiles.shape[1]
    kept = max(1, int(options.density * count))
    dropped = min(int(options.gamma * count), count - kept)
    return _entries.kth(tiles, dropped + kept), _entries.kth(tiles, dropped + 1)


def merge(tile: Tensor, state: tuple[Tensor, Tensor], options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    least, most = state
    for part, bound in zip(tile, most.to(tile), strict=True):
        part.mul_(part.abs().le_(bound))
    return _entries.weighted_sum(_entries.trim(tile, least), context.weights)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2312.06795",
    on="entries",
    survey=survey,
    breaks={
        "identity": "prunes a lone adapter too",
        "idempotence": "prunes, as identity",
    },
)
