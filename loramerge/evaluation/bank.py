"""All updates that candidates have at one module, each once, and how a pass takes them from there.

A candidate's update is Σ c · unit. Candidates whose updates are one unit each form groups of rows (a grouped
kernel); neighbours that share units, the same one at several scales or several with coefficients, become rows
of a coefficient matrix over those units' stacked factors: y += ((x Aᵀ) ∘ c) Bᵀ, however many candidates there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loramerge.core.arrays import tensor
from loramerge.evaluation.candidate import Terms, Unit
from loramerge.kernels import combined, grouped
from loramerge.kernels.pack import Pack, Segments

if TYPE_CHECKING:
    from torch import Tensor, device, dtype


@dataclass(frozen=True)
class Step:
    """One kernel call over the rows of the candidates `first` to `last` of a pass.

    Either `segments`, without numbers of rows yet, as (unit, scale) per candidate, or `coefficients` over `pack`.
    """

    first: int
    last: int
    pack: Pack
    which: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    coefficients: Tensor | None = None

    def add_(self, y: Tensor, x: Tensor, rows: int) -> None:
        """Add to y (candidates · rows, out) what these candidates' updates make of x (candidates · rows, in)."""
        here = slice(self.first * rows, self.last * rows)
        if self.coefficients is not None:
            combined.add_(y[here], x[here], self.pack, self.coefficients)
        else:
            grouped.add_(y[here], x[here], self.pack, Segments.equal(self.which, self.scales, rows))


class Bank:
    """The updates of one module: `Bank([terms of candidate 0, …])`; an empty tuple stands for no update."""

    def __init__(self, terms: Sequence[Terms]) -> None:
        self.terms = [tuple((unit, weight) for unit, weight in some if weight) for some in terms]
        self.units: dict[str, Unit] = {unit.key: unit for some in self.terms for unit, _ in some}
        self.places = {key: at for at, key in enumerate(self.units)}

    @cached_property
    def signatures(self) -> list[tuple[tuple[str, float], ...]]:
        """What tells candidates apart here."""
        return [tuple((unit.key, weight) for unit, weight in some) for some in self.terms]

    @cached_property
    def has_bias(self) -> bool:
        """Whether LoRA itself has biases here."""
        return any(unit.update.bias is not None for unit in self.units.values())

    def pack(self, dtype: dtype, device: device) -> Pack:
        """All units side by side, without their scales: those are in the steps."""
        flat = [unit.update.plain() for unit in self.units.values()]
        return Pack.of([(tensor(one.b), tensor(one.a)) for one in flat], dtype=dtype, device=device)

    def bias(self, at: int) -> Tensor | None:
        """The bias that a candidate's updates add, (out,)."""
        found = [tensor(u.update.bias) * (u.update.scale * w) for u, w in self.terms[at] if u.update.bias is not None]
        return sum(found[1:], found[0]) if found else None

    def steps(self, pack: Pack, chosen: Sequence[int]) -> list[Step]:
        """The kernel calls for a pass over these candidates, in their order."""
        return list(_steps(self, pack, chosen))


def _steps(bank: Bank, pack: Pack, chosen: Sequence[int]) -> Iterator[Step]:
    """Runs of candidates that share units become coefficients, what is between them groups."""
    places = [[(bank.places[unit.key], weight * unit.update.scale) for unit, weight in bank.terms[at]] for at in chosen]
    at = 0
    for shared, run in groupby(_runs(places), key=lambda pair: pair[0]):
        members = [place for _, place in run]
        first, last = at, at + len(members)
        at = last
        if shared is None:
            if any(members):
                which = tuple(some[0][0] if some else -1 for some in members)
                yield Step(first, last, pack, which, tuple(some[0][1] if some else 0.0 for some in members))
        else:
            yield Step(first, last, *_coefficients(pack, members))


def _runs(places: Sequence[Sequence[tuple[int, float]]]) -> Iterator[tuple[int | None, Sequence[tuple[int, float]]]]:
    """Each candidate with the number of the run of coefficients it belongs to; None for one in a group."""
    number = 0
    for at, some in enumerate(places):
        units = {unit for unit, _ in some}
        before = {unit for unit, _ in places[at - 1]} if at else set()
        after = {unit for unit, _ in places[at + 1]} if at + 1 < len(places) else set()
        if not units & before:
            number += 1
        alone = len(some) <= 1 and not units & (before | after)
        yield (None if alone else number), some


def _coefficients(pack: Pack, members: Sequence[Sequence[tuple[int, float]]]) -> tuple[Any, ...]:
    """(pack of the units in use, no groups, no scales, (candidates, units) coefficients)."""
    import torch

    used = sorted({unit for some in members for unit, _ in some})
    if used == list(range(used[0], used[-1] + 1)):
        rows = slice(pack.starts[used[0]], pack.starts[used[-1] + 1])
        a, b = pack.a[rows], pack.b[rows]
    else:
        index = torch.cat([torch.arange(pack.starts[u], pack.starts[u + 1]) for u in used]).to(pack.a.device)
        a, b = pack.a[index], pack.b[index]
    ranks = [pack.starts[unit + 1] - pack.starts[unit] for unit in used]
    starts = [sum(ranks[:at]) for at in range(len(ranks) + 1)]
    # Products with the units are accumulated in float32 at least, and so are coefficients.
    c = torch.zeros(len(members), starts[-1], device=a.device)
    for row, some in enumerate(members):
        for unit, weight in some:
            at = used.index(unit)
            c[row, starts[at] : starts[at + 1]] += weight
    return Pack(a, b, tuple(starts)), (), (), c
