"""DARE: drop entries of each update at random, rescale the rest, add up.

    M = Σ wᵢ · cᵢ · mᵢ ∘ ΔWᵢ,   each entry of the mask mᵢ is 1 with probability `density`, else 0

Options
    density   the probability that an entry is kept, in (0, 1]; 1 − the drop rate of the publication
    rescale   c. expectation: 1 / density, as published, so that the mean over all masks is Σ wᵢΔWᵢ.
              norm: what gives each update its Σ|x| back (mergekit's). none: 1

A mask depends on the seed, the module's name, the entry's place and the adapter's content: not on the
order of adapters, on which others there are, or on how the work is cut up. Copies of one adapter share
their mask. Weights are 1/n unless said. The result has full rank, and most of what dropping adds is noise
that no low rank holds: what the cut to `--rank` costs is in the report. LoRA's own biases are added with
their weights.

Gauge: ΔW is what is masked, but masks are drawn by the content of the factors, so the same update written
down otherwise gets another, equally likely mask; scales and the order of units do not matter.
Cost: O(n · out · in) for each pass over row tiles, one more under rescale=norm.

Source: Yu et al. 2023, https://arxiv.org/abs/2311.03099
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loramerge.methods import _entries
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    density: float = 0.5
    rescale: Literal["expectation", "norm", "none"] = "expectation"

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.5")


def merge(tile: Tensor, state: Sequence[float], options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    kept = _entries.drop(tile, options.density, context, start)
    return _entries.weighted_sum(_entries.scaled(kept, state), context.weights)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2311.03099",
    on="entries",
    survey=_entries.survey_drop,
    random=True,
    breaks={
        "identity": "drops entries of a lone adapter too",
        "idempotence": "drops, as identity",
        "gauge": "masks are drawn by the content of the factors",
    },
)
