"""Entries of several updates, a few rows at a time: what elementwise rules work on.

A tile is a tensor (n, rows, in) with the same rows of every ΔWᵢ. Nothing larger is formed, and tiles are
computed anew on each pass. Their height depends on n and `in` alone, so that results do not depend on
budgets or workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from loramerge.core.lowrank import common_shape

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from loramerge.core.lowrank import LowRank

TILE_BYTES = 4 * 2**20
"""A tile with its temporaries stays in a processor's second-level cache, or nearly."""


class Tiles:
    """Row tiles of n updates of one shape, in order, as often as asked for.

    In float32, or float64 where one of the updates is: (b[rows] @ a) · scale, the rounding of a dense
    product in that type. Holds the factors, O(n r (out + in)); a pass costs O(n r · out · in).
    """

    def __init__(self, updates: Sequence[LowRank]) -> None:
        self.shape = common_shape(updates)
        self.dtype = _working_dtype(updates)
        self.count = len(updates)
        self.height = height(self.count, self.shape, self.dtype.itemsize)
        self._parts = [(flat.b, flat.a, flat.scale) for flat in (u.plain().to(dtype=self.dtype) for u in updates)]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """The first row's number and the tile (n, rows, in)."""
        for start in range(0, self.shape[0], self.height):
            yield start, self._rows(start, min(self.shape[0], start + self.height))

    def stack(self) -> Stack:
        """All rows at once, computed once: O(n · out · in) memory."""
        return Stack(self._rows(0, self.shape[0]))

    def _rows(self, start: int, stop: int) -> Tensor:
        import torch

        tile = self._parts[0][0].new_empty(self.count, stop - start, self.shape[1])
        for part, (b, a, scale) in zip(tile, self._parts, strict=True):
            torch.mm(b[start:stop], a, out=part)
            if scale != 1.0:
                part.mul_(scale)
        return tile


class Stack:
    """The same for matrices that are there already: one tile, (n, rows, in)."""

    def __init__(self, stacked: Tensor) -> None:
        self.stacked = stacked
        self.count = int(stacked.shape[0])
        self.shape = (int(stacked.shape[1]), int(stacked.shape[2]))
        self.dtype = stacked.dtype
        self.height = self.shape[0]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """0 and a copy of the whole, which may be written into."""
        yield 0, self.stacked.clone()


class Blocks:
    """An (out, in) matrix by row blocks, as often as asked for: what a rule makes of tiles.

    `rule(start, tile)` turns a tile (n, rows, in), which it may write into, into rows of the result (rows, in).
    """

    def __init__(self, tiles: Tiles | Stack, rule: Callable[[int, Tensor], Tensor]) -> None:
        self.tiles = tiles
        self.shape = tiles.shape
        self.dtype = tiles.dtype
        self.rule = rule

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """The first row's number and the rows (rows, in)."""
        for start, tile in self.tiles:
            yield start, self.rule(start, tile)

    def dense(self) -> Tensor:
        """The whole matrix: O(out · in) memory."""
        import torch

        return torch.cat([block for _, block in self])


def height(count: int, shape: tuple[int, int], itemsize: int) -> int:
    """Rows of a tile: the largest power of two that keeps it within TILE_BYTES, at least 1."""
    out, in_ = shape
    fitting = max(1, TILE_BYTES // (count * in_ * itemsize))
    return min(out, 1 << (fitting.bit_length() - 1))


def _working_dtype(updates: Sequence[LowRank]) -> dtype:
    import torch

    wide = any(update.b.dtype == torch.float64 or update.a.dtype == torch.float64 for update in updates)
    return torch.float64 if wide else torch.float32
