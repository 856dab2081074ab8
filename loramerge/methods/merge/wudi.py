"""WUDI: the matrix that differs from each update only where that update does not look.

Per module, the D that makes the least of

    Σᵢ ‖(D − ΔWᵢ) ΔWᵢᵀ‖² / ‖ΔWᵢ‖²

The rows of ΔWᵢ stand for the inputs of its task: on those, D should do what ΔWᵢ does.

Options
    solver  closed: the minimum itself, D = (Σ ΔWᵢ Gᵢ)(Σ Gᵢ)⁺ with Gᵢ = ΔWᵢᵀΔWᵢ / ‖ΔWᵢ‖², of all minima the
            shortest. adam: `steps` of Adam from the sum, as published
    cutoff  closed: how far apart directions have to be. D has none of those in which [V₁ … Vₙ], the tasks' rows
            made orthonormal, has a singular value up to this share of the largest; 0 is the minimum of all
    steps   adam: how many
    lr      adam: the length of a step of one entry

With Σ rᵢ < in and rows that are independent, the closed minimum is zero: D does on each task's rows exactly what
that task's update does. Where rows of two tasks are nearly parallel and are to be sent to different places, that
takes a D that is large: on trained adapters up to 18 times their mean norm, which 0.1 brings to 2 to 5, where the
sum and the result of Adam are. The 300 steps of the publication stop far from the minimum, near the sum: the two are
different methods, and which serves better is a question to measurements.

Weights multiply the updates and are 1 unless said. LoRA's own biases are added with their weights.

What differs from the publication: the closed form. Adam normalises entry by entry, so that its path depends on
the basis: here it walks in the singular directions of the updates, where ΔW need not be formed, with `lr` larger
by √(out · in / p q) for cores (p, q): a step is as long as in the whole matrix. In float64.

Gauge: depends on the updates alone. Cost: O((out + in) N² + N³), N = Σ rᵢ, and O(steps · N³) for adam; ΔW is
never formed.

Source: Cheng et al. 2025 (ICML), https://arxiv.org/abs/2503.08099; code: github.com/nathanielyvo/WUDI-Merging
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, Literal

from loramerge.errors import BadOption
from loramerge.methods import _inner
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import Joint, Triplets


_ROUNDING = 1e-9
"""Directions that are no further apart than this are one."""


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    solver: Literal["closed", "adam"] = "closed"
    cutoff: float = 0.1
    steps: int = 300
    lr: float = 1e-5

    def __post_init__(self) -> None:
        _inner.check_least("steps", self.steps, 0)
        if not 0 <= self.cutoff < 1:
            raise BadOption(f"cutoff is {self.cutoff}, outside [0, 1).", hint="0.1")
        if not 0 < self.lr < float("inf"):
            raise BadOption(f"lr is {self.lr}, not a number above 0.", hint="1e-5, the value of the publication")


def wudi(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The merged update."""

    def rule(found: Joint) -> tuple[Tensor | LowRank, Mapping[str, Any]]:
        # A unit of rows is S Vᵀ / ‖S‖, what it is sent to U S² / ‖S‖: nothing is squared twice.
        parts = [(part, part.s / part.s.norm()) for part in _inner.tasks(found)]
        if options.solver == "closed":
            return closed(parts, options.cutoff), {}
        return adam(parts, _inner.total(found), options, sqrt(prod(found.shape) / prod(found.cores[0].shape))), {}

    return _inner.merged(updates, context, rule, basis="any" if options.solver == "closed" else "updates")


def closed(parts: Sequence[tuple[Triplets, Tensor]], cutoff: float) -> LowRank:
    """The shortest D with the least ‖D X − Y‖ among those whose rows lie in directions that are apart enough.

    X holds the tasks' rows as columns and Y what they are sent to.
    """
    import torch

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.joint import triplets

    apart = triplets(torch.cat([part.v for part, _ in parts], dim=1))
    apart = apart.first(int((apart.s > max(cutoff, _ROUNDING) * apart.s.max()).sum())) if len(apart.s) else apart
    x = apart.u.T @ torch.cat([part.v * share for part, share in parts], dim=1)
    y = torch.cat([part.u * part.s * share for part, share in parts], dim=1)
    rows = triplets(x)
    return LowRank(b=y @ (rows.v / rows.s), a=(apart.u @ rows.u).T)


def adam(parts: Sequence[tuple[Triplets, Tensor]], start: Tensor, options: Options, stretch: float) -> Tensor:
    """(p, q) where some steps down the sum of squares lead from `start`."""
    import torch

    walker = start.clone().requires_grad_()
    looked, wanted = start.new_zeros(start.shape[1], start.shape[1]), torch.zeros_like(start)
    for part, share in parts:
        rows = part.v * share**2
        looked += rows @ part.v.T
        wanted += part.u * part.s @ rows.T
    optimizer = torch.optim.Adam([walker], lr=options.lr * stretch)
    # Adam makes steps of all gradients, also of such as rounding leaves at the minimum.
    rounding = 32 * torch.finfo(start.dtype).eps * float(start.norm() * looked.norm() + wanted.norm())
    for _ in range(options.steps):
        gradient = 2.0 * (walker.detach() @ looked - wanted)
        walker.grad = gradient * (gradient.abs() > rounding)
        optimizer.step()
    return walker.detach()


METHOD = Method(
    wudi,
    Options,
    source="https://arxiv.org/abs/2503.08099",
    copies=7,
    weights="sum",
    breaks={"linearity": "a task's rows count the same at any weight but zero"},
)
