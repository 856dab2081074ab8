"""interpolate: a point of the straight way from one adapter to another.

    ΔW = (1 − t) w₁ ΔW₁ + t w₂ ΔW₂,   wᵢ = 1 unless said

Linear in the updates, whatever their ranks and factors. At t = 0 and t = 1 with weights of 1 the result is
a copy of that end, alpha and all, bit for bit, unless something else is asked for beside it (a lower rank,
`--scale`, another type). Biases go the same way, and so does what is averaged beside them (`--extras`).

Options
    t    0 … 1; beyond the ends, give `linear` the weights 1 − t and t

What differs from the publication: I-LoRA interpolates A and B each, which bends the way and asks for
equal ranks and one training run; that is `loramerge interpolate --space factors`.

Gauge: depends on the updates alone. Cost: that of the truncation; at the ends, of copying.
At t = 0.5 the order does not matter.

Source: mode connectivity of adapters, Ren et al. 2024 (I-LoRA), https://arxiv.org/abs/2402.18865
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.methods import _weighing
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    t: float = 0.5

    def __post_init__(self) -> None:
        _weighing.check_between(self.t)


def interpolate(gram: Callable[[], Tensor], options: Options, context: Context) -> Sequence[float]:
    """(1 − t) w₁, t w₂."""
    return shares(options, context.weights)


def shares(options: Options, weights: Sequence[float]) -> Sequence[float]:
    """(1 − t) w₁, t w₂."""
    return _weighing.between(options.t, weights)


def label(options: Options) -> str:
    """The place on the way."""
    return f"{options.t:g}"


METHOD = Method(
    interpolate,
    Options,
    source="https://arxiv.org/abs/2402.18865",
    on="coefficients",
    copies=0,
    weights="sum",
    least=2,
    most=2,
    ordered=True,
    shares=shares,
    label=label,
)
