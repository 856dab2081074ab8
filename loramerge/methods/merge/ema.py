"""ema: the exponential moving average of checkpoints, oldest first.

    θ₀ = w₀ ΔW₀,   θ_k = β_k θ_{k−1} + (1 − β_k) w_k ΔW_k,   wᵢ = 1 unless said

Unrolled: ΔW_k counts for (1 − β_k) Π_{j>k} β_j, so nothing is computed but n numbers, and the sum is cut to
its rank once, at the end. Biases, and what is averaged beside them (`--extras`), take the same numbers.

Options
    beta     β, 0 … 1: 1/(1 − β) checkpoints is about how far the average looks back
    warmup   how β_k comes to β, k counting checkpoints from 1.
             mean: β_k = min(β, k/(k + 1)), a plain mean as long as that is below β
             ramp: β_k = min(β, (1 + k)/(10 + k)), which favours late checkpoints at first
             none: β_k = β from the start, which weighs the first checkpoint by βⁿ⁻¹

By default (β = 0.999, warm-up mean) up to a thousand checkpoints count the same.

What differs from the publication: its average is taken at every step of training, on A and B each; this
one is taken afterwards, over what was saved, on updates. Its code keeps 0.25 of the old per step; 0.999
is what reimplementations take. An adapter that lacks a module counts as zero there.

Gauge: depends on the updates alone. Cost: that of the truncation; one checkpoint is held at a time where
Σ rᵢ reaches min(out, in).

Source: the slow learner of I-LoRA, Ren et al. 2024, https://arxiv.org/abs/2402.18865
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loramerge.errors import BadOption
from loramerge.methods._method import Context, Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    beta: float = 0.999
    warmup: Literal["mean", "ramp", "none"] = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise BadOption(f"beta is {self.beta:g}, outside [0, 1].", hint="0.9")


def ema(gram: Callable[[], Tensor], options: Options, context: Context) -> Sequence[float]:
    """wᵢ times what the recurrence makes of a one in place i."""
    return shares(options, context.weights)


def shares(options: Options, weights: Sequence[float]) -> Sequence[float]:
    """(1 − β_k) Π_{j>k} β_j · w_k, with β₀ = 0."""
    found, rest = [], 1.0
    for k in reversed(range(len(weights))):
        beta = decay(options, k) if k else 0.0
        found.append((1 - beta) * rest * weights[k])
        rest *= beta
    return found[::-1]


def decay(options: Options, k: int) -> float:
    """β_k."""
    if options.warmup == "none":
        return options.beta
    return min(options.beta, k / (k + 1) if options.warmup == "mean" else (1 + k) / (10 + k))


def label(options: Options) -> str:
    """How much is kept at each step."""
    return f"{options.beta:g}"


METHOD = Method(
    ema,
    Options,
    source="https://arxiv.org/abs/2402.18865",
    on="coefficients",
    copies=0,
    weights="sum",
    least=2,
    ordered=True,
    shares=shares,
    label=label,
    breaks={"zero": "a checkpoint of zero is one of the sequence: the others fade"},
)
