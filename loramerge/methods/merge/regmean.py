"""RegMean: the matrix whose outputs are closest to each update's outputs on that update's own inputs.

    M = (Σ wᵢΔWᵢG̃ᵢ)(Σ wᵢG̃ᵢ)⁻¹,   G̃ᵢ = α Gᵢ + (1 − α) diag(Gᵢ)

Gᵢ (in, in) is the mean of x xᵀ over model i's inputs to the module (`loramerge stats` measures it). At
α = 1 this minimises Σ wᵢ tr((M − ΔWᵢ) Gᵢ (M − ΔWᵢ)ᵀ), the squared error of the outputs; with base weights
common to all it makes no difference whether they are merged too.

Options
    alpha   α in [0, 1]: what is left of Gᵢ off its diagonal; below 1 the inverse is tame. 0.9 unless said; the
            publication is known to take 0.1 for T5 (its values were not verified)

Where the inputs leave a direction open (Σ wᵢG̃ᵢ is singular: tokens never seen, fewer samples than inputs
at α = 1) M is there the weighted mean Σ wᵢΔWᵢ / Σ wᵢ: of all minimisers the one closest to it, inputs being
brought to one size. Weights are 1/n unless said; only their ratios matter, and they are meant to be positive
(numbers of tokens, say). The result has full rank: what the cut to `--rank` costs is in the report; a
`--metric` makes the cut, too, one for outputs. LoRA's own biases are averaged: Σ wᵢ sᵢ biasᵢ / Σ wᵢ.

Gauge: depends on the updates alone. Cost: O(in³ + out · in² + n · in² · r) time, O(out · in + in²) memory,
whatever n is.

Source: Jin et al. 2023 (ICLR), https://arxiv.org/abs/2212.09849
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.methods import _inputs
from loramerge.methods._method import Context, Fold, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    alpha: float = 0.9

    def __post_init__(self) -> None:
        _inputs.check_share("alpha", self.alpha, 0.9)


@dataclass
class State:
    """Sums over the updates so far: wΔWG̃ (out, in), wG̃ (in, in), wΔW (out, in), w · bias, w."""

    grams: Sequence[Tensor]
    weights: Sequence[float]
    alpha: float
    moment: Tensor | None = None
    gram: Tensor | None = None
    total: Tensor | None = None
    bias: Tensor | None = None


def init(shape: tuple[int, int], options: Options, context: Context) -> State:
    """Nothing seen yet."""
    return State(context.data["grams"], context.weights, options.alpha)


def step(state: State, at: int, update: LowRank) -> State:
    """Takes in the at-th update."""
    flat, weight = update.plain(), state.weights[at]
    gram = _inputs.damped(state.grams[at], state.alpha)
    left = flat.b * (flat.scale * weight)
    if state.moment is None or state.gram is None or state.total is None:
        state.moment, state.gram, state.total = left @ (flat.a @ gram), gram * weight, left @ flat.a
    else:
        state.moment.addmm_(left, flat.a @ gram)
        state.gram.add_(gram, alpha=weight)
        state.total.addmm_(left, flat.a)
    if flat.bias is not None:
        bias = flat.bias * (flat.scale * weight)
        state.bias = bias if state.bias is None else state.bias + bias
    return state


def finish(state: State) -> Outcome:
    """The weighted mean, and what the inputs say against it."""
    from loramerge.linalg.tiles import Blocks, Stack

    assert state.moment is not None
    assert state.gram is not None
    assert state.total is not None
    weight = sum(state.weights) or 1.0
    mean = state.total.div_(weight)
    merged = mean.add_(_inputs.solved(state.moment.addmm_(mean, state.gram, alpha=-1.0), state.gram))
    blocks = Blocks(Stack(merged[None]), lambda start, tile: tile[0])
    return Outcome(blocks=blocks, bias=None if state.bias is None else state.bias / weight)


METHOD = Method(
    Fold(init, step, finish),
    Options,
    source="https://arxiv.org/abs/2212.09849",
    on="stream",
    needs=("grams",),
    breaks={
        "linearity": "the result is a mean: only the ratios of weights matter",
        "zero": "an update of zeros counts with the inputs that it saw",
    },
)
