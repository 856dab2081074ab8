"""y += scale · h B, each tile of rows with its own update's B; up to three modules that read the same rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from loramerge.kernels._triton.tiles import Shape, interprets, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

AT_ONCE = 3
_DEEPEST = 64


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(
    h, table, scales,
    y0, y1, y2, b0, b1, b2, outs0, outs1, outs2, stride0, stride1, stride2,
    rows_in_all, first_slice,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, RANK: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, R: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    which = tl.program_id(2)
    y, b = y0, b0
    if which == 1:
        y, b = y1, b1
    if which == 2:
        y, b = y2, b2
    outs = tl.where(which == 0, outs0, tl.where(which == 1, outs1, outs2))
    stride = tl.where(which == 0, stride0, tl.where(which == 1, stride1, stride2))

    entry = table + tl.program_id(0) * COLUMNS
    row, rows = tl.load(entry), tl.load(entry + 1)
    own = entry + 4 + 3 * (first_slice + which)
    column, start, rank = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    scale = tl.load(scales + tl.program_id(0))
    m, n = tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N)
    of_row = (row + m).to(tl.int64)
    total = tl.zeros((M, N), tl.float32)
    for step in range(0, RANK, R):
        r = step + tl.arange(0, R)
        low = tl.zeros((M, R), tl.float32)
        for part in range(PARTS):
            at = (part * rows_in_all + of_row)[:, None] * WIDTH + column + r[None, :]
            low += tl.load(h + at, mask=(m[:, None] < rows) & (r[None, :] < rank), other=0.0)
        low = low * scale
        right = tl.load(
            b + (start + r).to(tl.int64)[:, None] * outs + n[None, :],
            mask=(r[:, None] < rank) & (n[None, :] < outs),
            other=0.0,
        )
        if UP:
            right = right.to(tl.float32)
        total = tl.dot(low.to(right.dtype), right, total, input_precision="ieee")
    ys = y + of_row[:, None] * stride + n[None, :]
    inside = (m[:, None] < rows) & (n[None, :] < outs)
    before = tl.load(ys, mask=inside, other=0.0).to(tl.float32)
    tl.store(ys, (before + total).to(y.dtype.element_ty), mask=inside)


def launch(
    ys: Sequence[Tensor], bs: Sequence[Tensor], first: int, h: Tensor, table: Tensor, scales: Tensor, rank: int,
    shape: Shape,
) -> None:  # fmt: skip
    """Add to at most three ys (T, out) whose slices begin at `first`; `h` is what `shrink` made.

    `rank` is the most units an update has in one of them.
    """
    spare = [ys[0]] * (AT_ONCE - len(ys)), [bs[0]] * (AT_ONCE - len(bs))
    all_ys, all_bs = [*ys, *spare[0]], [*bs, *spare[1]]
    grid = (len(table), -(-max(y.shape[1] for y in ys) // shape.n), len(ys))
    _kernel[grid](
        h, table, scales, *all_ys, *all_bs, *(y.shape[1] for y in all_ys), *(y.stride(0) for y in all_ys),
        h.shape[1], first,
        COLUMNS=table.shape[1], WIDTH=h.shape[2], PARTS=h.shape[0], RANK=padded(rank),
        M=shape.m, N=shape.n, R=min(padded(rank), _DEEPEST), UP=interprets(_kernel),
        **shape.options,
    )  # fmt: skip
