"""The grouped product: one `shrink`, and one `expand` for every three modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.kernels._triton import expand, shrink, tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from loramerge.kernels._triton.tiles import Shape
    from loramerge.kernels.pack import Segments, Slices


def add_(ys: Sequence[Tensor], x: Tensor, slices: Slices, segments: Segments, *, shape: Shape | None = None) -> None:
    """See `loramerge.kernels.grouped.add_slices_`; `shape` overrides the device's own."""
    shape = shape or tiles.GROUPED[x.device.type, x.element_size()]
    table, scales = tiles.of(slices, segments, shape.m)
    h = shrink.launch(x, slices.a, table, slices.width, shape)
    for first in range(0, len(ys), expand.AT_ONCE):
        some = slice(first, first + expand.AT_ONCE)
        expand.launch(ys[some], slices.bs[some], first, h, table, scales, slices.rank, shape)
