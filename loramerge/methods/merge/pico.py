"""Pico: outputs that many adapters use are turned down before they are added up.

Per module, for n adapters that have an update at all:

1. U Σ = left singular vectors and values of the `stack`; cₖ = σₖ² / Σ σ² says how crowded direction k is
2. αₖ = 1 / (1 + (n − 1) cₖ); each update becomes U diag(α) Uᵀ ΔWᵢ
3. the weighted sum (or another `inner` rule) of those, times γ, so that its norm is Σ |wᵢ| ‖ΔWᵢ‖: the mean norm
   of the updates at weights of 1/n

Options
    stack    updates: [ΔW₁ … ΔWₙ]. factors: [B₁ … Bₙ], as published
    inner    linear: the sum. tsv: as the method `tsv`
    rescale  mean: 3's γ. none: γ = 1

Weights are 1/n unless said and count in 3 only; they do not make a direction more crowded. LoRA's own biases are
added with their weights.

What differs from the publication: the stack of the updates by default, which does not depend on how they are
written down as B A; adapters whose A has rows of equal length at right angles, as they are initialised, have
the same in both. With `factors`, √|scale| is in B, which is otherwise taken as it is stored. Numbers above are
those of the authors' code; their command line rescales each calibrated adapter by itself instead of the sum.

Gauge: depends on the updates alone, but for `stack=factors`. Cost: O((out + in) N² + N³), N = Σ rᵢ; ΔW is never
formed.

Source: Tang and Yang 2026, https://arxiv.org/abs/2604.16826; code: github.com/yixuantt/Pico
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from loramerge.core.lowrank import cat
from loramerge.methods import _inner, _weighing
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    stack: Literal["updates", "factors"] = "updates"
    inner: Literal["linear", "tsv"] = "linear"
    rescale: Literal["mean", "none"] = "mean"


def pico(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update."""

    def rule(found: Joint) -> tuple[Tensor | LowRank, Mapping[str, Any]]:
        from loramerge.linalg.measure import norm

        norms = [norm(core) for core in found.cores]
        crowded = crowding(found, updates if options.stack == "factors" else None)
        alpha = 1.0 / (1.0 + (sum(size > found.rounding for size in norms) - 1) * crowded)
        calm = [replace(core, b=core.b * alpha[:, None]) for core in found.cores]
        weighted = replace(found, cores=tuple(_weighing.weighted(calm, context)))
        merged = _inner.tsv(weighted, None) if options.inner == "tsv" else cat(weighted.cores)
        size, wanted = norm(merged), sum(abs(w) * size for w, size in zip(context.weights, norms, strict=True))
        if options.rescale == "mean" and size > found.rounding:
            merged = merged.times(wanted / size)
        return merged, {"crowding": float(crowded.max())}

    return _inner.merged(updates, context, rule, basis=options.stack, weigh=False)


def crowding(found: Joint, factors: Sequence[LowRank] | None) -> Tensor:
    """(p,) the share of each direction in the squares of what is stacked: the updates, or their B where given.

    The basis are the singular vectors of that very stack, so that its squares are those of the rows.
    """
    import torch

    from loramerge.linalg.joint import root

    if factors is None:
        squares = torch.stack([root(core).square().sum(1) for core in found.cores]).sum(0)
    else:
        assert found.left is not None
        squares = (found.left.T @ torch.cat([f.to(dtype=torch.float64).folded().b for f in factors], 1)).square().sum(1)
    return squares / squares.sum()


METHOD = Method(
    pico,
    Options,
    source="https://arxiv.org/abs/2604.16826",
    copies=7,
    breaks={
        "idempotence": "turns down the strong directions of copies too",
        "linearity": "the norm is brought to that of the updates",
    },
)
