"""x Wᵀ + bias + scale · h B in one product: an update's units are more steps of the base's sum.

What `expand` reads and writes of y is saved, if this product is about as fast as the library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from loramerge.kernels._triton import shrink, tiles
from loramerge.kernels._triton.tiles import Shape, interprets, padded

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.kernels.pack import Segments, Slices

_DEEPEST = 64


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(
    x, w, bias, y, h, b, table, scales,
    outs, rows_in_all, x_stride, w_stride,
    INPUTS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, RANK: tl.constexpr,
    BIAS: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, R: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    # Tiles of rows vary fastest, so that programs at work together share a block of W in the cache.
    entry = table + tl.program_id(0) * COLUMNS
    row, rows = tl.load(entry), tl.load(entry + 1)
    start, rank = tl.load(entry + 5), tl.load(entry + 6)
    scale = tl.load(scales + tl.program_id(0))
    m, k = tl.arange(0, M), tl.arange(0, K)
    n = tl.program_id(1) * N + tl.arange(0, N)
    of_row = (row + m).to(tl.int64)
    xs = x + of_row[:, None] * x_stride
    ws = w + n.to(tl.int64)[None, :] * w_stride
    total = tl.zeros((M, N), tl.float32)
    for step in range(0, INPUTS, K):
        at = step + k
        left = tl.load(xs + at[None, :], mask=(m[:, None] < rows) & (at[None, :] < INPUTS), other=0.0)
        right = tl.load(ws + at[:, None], mask=(n[None, :] < outs) & (at[:, None] < INPUTS), other=0.0)
        if UP:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    for step in range(0, RANK, R):
        r = step + tl.arange(0, R)
        low = tl.zeros((M, R), tl.float32)
        for part in range(PARTS):
            at_h = (part * rows_in_all + of_row)[:, None] * WIDTH + r[None, :]
            low += tl.load(h + at_h, mask=(m[:, None] < rows) & (r[None, :] < rank), other=0.0)
        low = low * scale
        units = tl.load(
            b + (start + r).to(tl.int64)[:, None] * outs + n[None, :],
            mask=(r[:, None] < rank) & (n[None, :] < outs),
            other=0.0,
        )
        if UP:
            units = units.to(tl.float32)
        total = tl.dot(low.to(units.dtype), units, total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + n, mask=n < outs, other=0.0).to(tl.float32)[None, :]
    ys = y + of_row[:, None] * outs + n[None, :]
    tl.store(ys, total.to(y.dtype.element_ty), mask=(m[:, None] < rows) & (n[None, :] < outs))


def launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, slices: Slices, segments: Segments, *, shape: Shape | None = None
) -> Tensor:
    """See `loramerge.kernels.linear.linear`, for one module; `shape` overrides the device's own."""
    shape = shape or tiles.FUSED[x.device.type, x.element_size()]
    narrow = tiles.GROUPED[x.device.type, x.element_size()]
    h = shrink.launch(x, slices.a, tiles.of(slices, segments, narrow.m)[0], slices.width, narrow)
    table, scales = tiles.of(slices, segments, shape.m, everything=True)
    y = x.new_empty((x.shape[0], weight.shape[0]))
    grid = (len(table), -(-weight.shape[0] // shape.n))
    _kernel[grid](
        x, weight, weight if bias is None else bias, y, h, slices.bs[0], table, scales,
        weight.shape[0], x.shape[0], x.stride(0), weight.stride(0),
        INPUTS=weight.shape[1], COLUMNS=table.shape[1], WIDTH=h.shape[2], PARTS=h.shape[0], RANK=padded(slices.rank),
        BIAS=bias is not None,
        M=shape.m, N=shape.n, K=shape.k, R=min(padded(slices.rank), _DEEPEST), UP=interprets(_kernel),
        **shape.options,
    )  # fmt: skip
    return y
