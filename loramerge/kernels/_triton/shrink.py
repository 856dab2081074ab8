"""h = x Aᵀ, each tile of rows with its own update's A."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from loramerge.kernels._triton.tiles import Shape, interprets, padded, parts

if TYPE_CHECKING:
    from torch import Tensor

_WIDEST = 128


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(
    x, a, h, table,
    inputs, rows_in_all, x_stride,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
    M: tl.constexpr, R: tl.constexpr, K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    entry = table + tl.program_id(0) * COLUMNS
    part = tl.program_id(1)
    row, rows = tl.load(entry), tl.load(entry + 1)
    start, width = tl.load(entry + 2), tl.load(entry + 3)
    m, k = tl.arange(0, M), tl.arange(0, K)
    r = tl.program_id(2) * R + tl.arange(0, R)
    of_row = (row + m).to(tl.int64)
    xs = x + of_row[:, None] * x_stride
    as_ = a + (start + r).to(tl.int64)[None, :] * inputs
    total = tl.zeros((M, R), tl.float32)
    for step in range(0, CHUNK, K):
        at = part * CHUNK + step + k
        left = tl.load(xs + at[None, :], mask=(m[:, None] < rows) & (at[None, :] < inputs), other=0.0)
        right = tl.load(as_ + at[:, None], mask=(r[None, :] < width) & (at[:, None] < inputs), other=0.0)
        if UP:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    hs = h + (part.to(tl.int64) * rows_in_all + of_row)[:, None] * WIDTH + r[None, :]
    tl.store(hs, total, mask=(m[:, None] < rows) & (r[None, :] < width))


def launch(x: Tensor, a: Tensor, table: Tensor, width: int, shape: Shape) -> Tensor:
    """Partial sums (parts, T, padded width) in float32, of which rows without a tile and spare units are undefined.

    x (T, in) with contiguous rows, a (R, in), `table` of `tiles.of`, `width` the most units an update has.
    """
    import torch

    side = min(padded(width), _WIDEST)
    count, chunk = parts(a.shape[1], shape.k)
    h = x.new_empty((count, x.shape[0], padded(width)), dtype=torch.float32)
    grid = (len(table), count, -(-width // side))
    _kernel[grid](
        x, a, h, table, a.shape[1], x.shape[0], x.stride(0),
        COLUMNS=table.shape[1], WIDTH=h.shape[2], CHUNK=chunk, M=shape.m, R=side, K=shape.k, UP=interprets(_kernel),
        **shape.options,
    )  # fmt: skip
    return h
