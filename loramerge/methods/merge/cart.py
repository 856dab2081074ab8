"""CART: the mean, and what each task has beyond it, cut to a low rank.

Per module, for n updates Eᵢ = n wᵢ ΔWᵢ (at weights of 1/n the updates themselves):

    M = (1/n) Σ Eᵢ
    ΔW = M + λ Σᵢ cutₖ(Eᵢ − M)

cutₖ is the best approximation of rank k. All that is cut away tends to cancel: without cutting, Σ (Eᵢ − M) is
zero and the result is the mean. So it is for two adapters whatever the options: each deviates as the other does,
with the other sign.

Options
    scale  λ
    share  k is ⌈share · rank⌉ for each task, the rank that of its Eᵢ − M, in (0, 1]

What differs from the authors: their k is a share of min(out, in), of which an adapter's deviations do not fill
more than Σ rᵢ; of their four values (0.04, 0.08, 0.16, 0.32, as core-space-merging searches them for LoRA) the
first is the default. λ is searched there as well; 1 stands for the deviations as they are. Which values the
publication itself uses could not be checked. LoRA's own biases are added with their weights.

An adapter that does not have the module counts as a task whose update is zero.

Gauge: depends on the updates alone. Cost: O((out + in) N² + n N³), N = Σ rᵢ; ΔW is never formed.

Source: Choi et al. 2024, https://arxiv.org/abs/2412.12153
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption
from loramerge.methods import _entries, _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    scale: float = 1.0
    share: float = 0.04

    def __post_init__(self) -> None:
        _entries.check_share("share", self.share, "0.04, 0.08, 0.16 or 0.32")
        if not isfinite(self.scale):
            raise BadOption(f"A scale of {self.scale} has no meaning.", hint="1")


def cart(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update."""

    def rule(found: Joint) -> tuple[Tensor, Mapping[str, Any]]:
        from loramerge.linalg.joint import triplets

        count = len(updates)
        mean = _inner.total(found)
        merged, ranks = mean.clone(), []
        for core in found.cores:
            deviation = triplets(core.times(count).dense() - mean, count * found.rounding)
            kept = deviation.first(ceil(options.share * len(deviation.s)))
            ranks.append(len(kept.s))
            merged += options.scale * kept.lowrank().dense()
        return merged, {"ranks": ranks}

    return _inner.merged(updates, context, rule)


METHOD = Method(
    cart,
    Options,
    source="https://arxiv.org/abs/2412.12153",
    copies=7,
    breaks={
        "zero": "a task without an update is a task: it moves the mean and deviates from it",
        "linearity": "the best approximations of a sum are not the sum of those of its parts",
    },
)
