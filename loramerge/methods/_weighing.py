"""What methods share that weigh updates by numbers known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loramerge.errors import BadOption
from loramerge.methods._method import Context

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class NoOptions:
    """None: weights and rank are every method's."""


def as_given(gram: Callable[[], Tensor], options: NoOptions, context: Context) -> Sequence[float]:
    """The weights themselves."""
    return context.weights


def weighted(updates: Sequence[LowRank], context: Context) -> list[LowRank]:
    """wᵢ · ΔWᵢ."""
    return [update.times(weight) for update, weight in zip(updates, context.weights, strict=True)]


def check_between(t: float) -> None:
    """Raises BadOption for a t outside [0, 1]."""
    if not 0 <= t <= 1:
        raise BadOption(
            f"t is {t:g}, outside [0, 1].", hint="0.5; --method linear with weights 1-t and t goes beyond the ends"
        )


def between(t: float, weights: Sequence[float]) -> tuple[float, float]:
    """What two updates count for at t of the straight way from the first to the second."""
    first, second = weights
    return (1 - t) * first, t * second
