"""What the kernels take: the updates of one module side by side, and which rows belong to which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from loramerge.errors import ShapeMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, device, dtype


@dataclass(frozen=True, eq=False)
class Pack:
    """Updates B_i A_i of one module, true ranks, nothing padded.

    a (R, in) holds the rows of the A_i, update after update; b (R, out) the columns of the B_i as rows.
    Update i has rows starts[i]:starts[i + 1] of both; R is the sum of the ranks.
    """

    a: Tensor
    b: Tensor
    starts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        updates: Sequence[tuple[Tensor, Tensor]],
        *,
        dtype: dtype | None = None,
        device: device | str | None = None,
    ) -> Pack:
        """Copy pairs (b (out, r), a (r, in)) side by side; an update of rank 0 adds nothing.

        Raises ShapeMismatch where there is no update, or they are not of one module.
        """
        import torch

        shapes = {(b.shape[0], a.shape[1]) for b, a in updates}
        if len(shapes) != 1 or any(b.shape[1] != a.shape[0] for b, a in updates):
            found = ", ".join(f"{tuple(b.shape)}·{tuple(a.shape)}" for b, a in updates) or "nothing"
            raise ShapeMismatch(f"These are no updates of one module: {found}.")
        a = torch.cat([a.to(device=device, dtype=dtype) for _, a in updates])
        b = torch.cat([b.to(device=device, dtype=dtype).T for b, _ in updates])
        return cls(a, b, tuple(accumulate((a.shape[0] for _, a in updates), initial=0)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, update: int) -> slice:
        """Where the units of one update are in `a` and `b`."""
        return slice(self.starts[update], self.starts[update + 1])

    @cached_property
    def alone(self) -> Slices:
        """The pack as slices of one module; nothing is copied."""
        return Slices(self.a, self.starts, (self.b,), (self.starts,))


@dataclass(frozen=True)
class Segments:
    """Contiguous runs of rows, an update each: rows bounds[i]:bounds[i + 1] belong to which[i], times scales[i].

    -1 stands for no adapter. A segment may be empty; bounds begin at 0 and end at the number of rows.
    """

    bounds: tuple[int, ...]
    which: tuple[int, ...]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.which) == len(self.scales) == len(self.bounds) - 1:
            raise ShapeMismatch(
                f"{len(self.bounds)} bounds, {len(self.which)} updates and {len(self.scales)} scales are no segments."
            )
        if self.bounds[0] != 0 or any(low > high for low, high in pairwise(self.bounds)):
            raise ShapeMismatch(f"Bounds {self.bounds} do not rise from 0.")

    @classmethod
    def equal(cls, which: Sequence[int], scales: Sequence[float], rows: int) -> Segments:
        """A segment of `rows` rows for each of `which`."""
        return cls(tuple(rows * i for i in range(len(which) + 1)), tuple(which), tuple(scales))

    @classmethod
    def sorted(cls, mapping: Sequence[int], scales: Sequence[float]) -> tuple[list[int], Segments]:
        """Segments for rows in any order: (the order in which x's rows are to be taken, the segments of that).

        `mapping` names an update for each row, `scales` has one of each update. The order is stable, -1 first.
        """
        order = sorted(range(len(mapping)), key=mapping.__getitem__)
        ends = [t + 1 for t, row in enumerate(order) if t + 1 == len(order) or mapping[order[t + 1]] != mapping[row]]
        which = [mapping[order[end - 1]] for end in ends]
        return order, cls((0, *ends), tuple(which), tuple(0.0 if i < 0 else scales[i] for i in which))

    @property
    def rows(self) -> int:
        """The number of rows in all."""
        return self.bounds[-1]

    def __iter__(self) -> Iterator[tuple[int, int, int, float]]:
        """(first row, row after the last, update, scale) of each segment."""
        return zip(self.bounds[:-1], self.bounds[1:], self.which, self.scales, strict=True)

    @cached_property
    def joined(self) -> tuple[tuple[int, int, int, float], ...]:
        """The segments that do something; neighbours of one update and scale are one."""
        found: list[tuple[int, int, int, float]] = []
        for low, high, update, scale in self:
            if low == high or update < 0:
                continue
            if found and found[-1][1:] == (low, update, scale):
                low = found.pop()[0]
            found.append((low, high, update, scale))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Slices:
    """Updates of several modules that read the same rows (q/k/v, gate/up): their A's stacked, so one product does all.

    a (ΣR, in) holds update after update, and in an update module after module; update i has rows
    starts[i]:starts[i + 1]. bs[j] (R_j, out_j) and parts[j] are those of module j's `Pack`.
    """

    a: Tensor
    starts: tuple[int, ...]
    bs: tuple[Tensor, ...]
    parts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, packs: Sequence[Pack]) -> Slices:
        """Stack the A's of packs with the same number of updates."""
        import torch

        counts, widths = {len(pack) for pack in packs}, {pack.a.shape[1] for pack in packs}
        if len(counts) != 1 or len(widths) != 1:
            raise ShapeMismatch(f"Packs of {counts} updates and {widths} inputs do not read the same rows.")
        n = counts.pop()
        a = torch.cat([pack.a[pack.rows(i)] for i in range(n) for pack in packs])
        parts = tuple(pack.starts for pack in packs)
        return cls(a, tuple(map(sum, zip(*parts, strict=True))), tuple(pack.b for pack in packs), parts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def ranks(self, update: int) -> tuple[int, ...]:
        """The rank of one update in each module."""
        return tuple(part[update + 1] - part[update] for part in self.parts)

    @cached_property
    def width(self) -> int:
        """The most units an update has in all modules together."""
        return max((high - low for low, high in pairwise(self.starts)), default=0)

    @cached_property
    def rank(self) -> int:
        """The most units an update has in one module."""
        return max((high - low for part in self.parts for low, high in pairwise(part)), default=0)
