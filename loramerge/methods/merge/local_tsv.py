"""Local TSV: updates that keep out of one another's inputs, put together by TSV-Merge.

Per module, with Gᵢ (in, in) the mean of x xᵀ over the inputs to it in adapter i's own model (`loramerge stats`
measures it) and G̃ᵢ = α Gᵢ + (1 − α) diag(Gᵢ):

1. ΔW'ᵢ = ΔWᵢ G̃ᵢ (G̃ᵢ + λ Σ_{j≠i} G̃ⱼ)⁻¹, which does what ΔWᵢ does on its own inputs and little on the others':
   at α = 1 the M with the least tr((M − ΔWᵢ) Gᵢ (M − ΔWᵢ)ᵀ) + λ Σ_{j≠i} tr(M Gⱼ Mᵀ)
2. ΔW = U⊥ S V⊥ᵀ of all singular triplets of the wᵢΔW'ᵢ side by side, X⊥ = X (XᵀX)^(−½), as the method `tsv` does

Options
    alpha   α in [0, 1]: what is left of Gᵢ off its diagonal, as in `regmean`; 0.9 unless said
    others  λ in [0, 1]: what the others' inputs count for beside an update's own; 0.05 unless said. At 0 this is
            `tsv`; at 1 the ΔW'ᵢ are the terms that RegMean adds up

Weights multiply the ΔW'ᵢ and are 1 unless said; they do not change what inputs count for, so that an adapter
of weight 0 still keeps the others out. An adapter that lacks the module does, too: with the inputs that were
measured of it, or else with the mean of the others'. The sizes of inputs count: where those of one adapter are
much larger, little is left of the others there. Of directions that no input has 1 / (1 + λ(n − 1)) is left of
each update, for n adapters: what inputs of one size all around leave. Turned apart the updates are mostly too
large together: a `--scale` of about 0.6 suited five adapters. LoRA's own biases are added with their weights.

This is our own combination of two publications and stands in neither: RegMean's matrices localise each update,
TSV-Merge's whitening joins them. Singular values that localising brings below 1e-10 of the update's largest are
rounding and take no part.

Gauge: depends on the updates alone. Cost: O(n · in³ + (out + in) N² + N³) time, N = Σ rᵢ, and O(in²) memory
beside the factors; ΔW is never formed.

Source: Gargiulo et al. 2025 (CVPR), https://arxiv.org/abs/2412.00081, and Jin et al. 2023 (ICLR),
https://arxiv.org/abs/2212.09849
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loramerge.methods import _inner, _inputs
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint

_GONE = 1e-10
"""Singular values up to this share of an update's largest are what rounding leaves of directions that are gone."""


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    alpha: float = 0.9
    others: float = 0.05

    def __post_init__(self) -> None:
        _inputs.check_share("alpha", self.alpha, 0.9)
        _inputs.check_share("others", self.others, 0.05)


def local_tsv(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update, with as many units as triplets were left."""

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        core = _inner.tsv(found, None)
        return core, {"triplets": core.rank}

    return _inner.merged(localised(updates, context.data["grams"], options), context, rule)


def localised(updates: Sequence[LowRank], grams: Sequence[Tensor], options: Options) -> list[LowRank]:
    """The updates as each serves its own inputs and spares the others', in float64, their biases as they were.

    Of the Grams, which may load when they are asked for, one at a time is held.
    """
    total = _inputs.damped(grams[0], options.alpha)
    for at in range(1, len(grams)):
        total.add_(_inputs.damped(grams[at], options.alpha))
    unseen = 1 / (1 + options.others * (len(grams) - 1))
    return [
        _local(update, _inputs.damped(grams[at], options.alpha), total, options.others, unseen)
        for at, update in enumerate(updates)
    ]


def _local(update: LowRank, own: Tensor, total: Tensor, others: float, unseen: float) -> LowRank:
    """One update of which `unseen` is left where no input is; writes into the Gram of its own inputs."""
    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import triplets

    flat = update.exact().folded()
    found = triplets(flat)
    rows = found.v.T
    moment, rest = rows @ own, rows * unseen
    # (1 − λ) G̃ᵢ + λ Σ G̃ⱼ is G̃ᵢ with the others, and at λ = 0 exactly G̃ᵢ.
    system = own.lerp_(total, others)
    local = LowRank(b=found.u * found.s, a=rest + _inputs.solved(moment.sub_(rest @ system), system))
    left = triplets(local, _GONE * max(found.s.tolist(), default=0.0))
    return replace(left.lowrank(), bias=flat.bias)


METHOD = Method(
    local_tsv,
    Options,
    source="https://arxiv.org/abs/2412.00081",
    copies=8,
    weights="sum",
    needs=("grams",),
    breaks={
        "idempotence": "copies have the same inputs and keep out of each other's: 1 / (1 + λ(n − 1)) of each is left",
        "linearity": "a task turns the others' directions aside at any weight but zero",
        "zero": "an update of zeros keeps the others out of the inputs that it saw",
    },
)
