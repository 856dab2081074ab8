"""DARE-TIES: drop entries at random, rescale the rest, elect a sign, average those that agree.

Per module, with the entries x₁ … xₙ of the updates at one place:

1. drop: each xᵢ stays with probability `density` and is rescaled, else it becomes zero (see `dare`)
2. elect: s = sign(Σᵢ xᵢ), +1 where the sum is zero
3. merge: Σ wᵢxᵢ over those with sign(xᵢ) = s, divided by how many they are

Options
    density   the probability that an entry is kept, in (0, 1]
    rescale   expectation: 1 / density. norm: what gives each update its Σ|x| back (mergekit's). none: 1
    sign      total: the sign of the sum. frequency: of the sum of signs
    weigh     after: the weights enter in 3 only (PEFT). before: they multiply the updates before 2, and 3
              divides by the sum of the agreeing weights (mergekit's, with its `normalize`)

Masks are those of `dare` with the same seed. Weights are 1 unless said. The result has full rank: what the
cut to `--rank` costs is in the report. LoRA's own biases are added with their weights.

Gauge: as `dare`: masks are drawn by the content of the factors. Cost: O(n · out · in) for each pass over
row tiles, one more under rescale=norm.

Source: Yu et al. 2023, https://arxiv.org/abs/2311.03099, with the vote of Yadav et al. 2023
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
    sign: Literal["total", "frequency"] = "total"
    weigh: Literal["after", "before"] = "after"

    def __post_init__(self) -> None:
        _entries.check_share("density", self.density, "0.5")


def merge(tile: Tensor, state: Sequence[float], options: Options, context: Context, start: int) -> Tensor:
    """(n, rows, in) → (rows, in)."""
    kept = _entries.scaled(_entries.drop(tile, options.density, context, start), state)
    return _entries.elect_and_average(kept, context.weights, sign=options.sign, weigh=options.weigh)


METHOD = Method(
    merge,
    Options,
    source="https://arxiv.org/abs/2311.03099",
    on="entries",
    survey=_entries.survey_drop,
    weights="sum",
    random=True,
    breaks={
        "identity": "drops entries of a lone adapter too",
        "idempotence": "drops, as identity",
        "gauge": "masks are drawn by the content of the factors",
    },
)
