"""The grouped product in torch: batched products on views, in place.

Segments that follow one another in the pack, with equally many rows and equal ranks, are one `bmm`; any other segment
is a batch of one. A batch is up to ten times faster than as many plain products, and no slower from some 256 rows a
segment on; a batch of one is a plain product.

Bits on a processor: a row's result is the same whatever other updates are in the call, in which order and with how
many rows, as long as the update's own rows are the same and lie together. That is seen, not promised, with MKL and
oneDNN in float64, float32 and bfloat16; in float16 one result in a hundred differs. A row's bits do depend on how many
rows its update has (float32 below 32 rows, float64 below 8), and on whether y's rows lie apart. On a GPU cuBLAS
promises nothing of the kind.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, device, dtype

    from loramerge.kernels.pack import Segments, Slices


class Run(NamedTuple):
    """`n` segments from row `low`, `rows` rows each, for the updates from `update` on, of equal `ranks`."""

    low: int
    rows: int
    update: int
    ranks: tuple[int, ...]
    scales: tuple[float, ...]

    def next(self, run: Run) -> bool:
        """Whether a run continues this one."""
        n = len(self.scales)
        expected = (self.low + n * self.rows, self.rows, self.update + n, self.ranks)
        return expected == (run.low, run.rows, run.update, run.ranks)


def add_(ys: Sequence[Tensor], x: Tensor, slices: Slices, segments: Segments) -> None:
    """See `grouped.add_slices_`."""
    for run in runs(slices.starts, slices.parts, segments):
        n, width, first = len(run.scales), sum(run.ranks), slices.starts[run.update]
        where = slice(run.low, run.low + n * run.rows)
        a = slices.a[first : first + n * width].view(n, width, -1)
        h = _product(x[where].view(n, run.rows, -1), a.transpose(1, 2))
        h *= _column(run.scales, h.dtype, h.device)
        column = 0
        for y, b, part, rank in zip(ys, slices.bs, slices.parts, run.ranks, strict=True):
            if rank:
                own = b[part[run.update] : part[run.update] + n * rank].view(n, rank, -1)
                _add_product(y[where].view(n, run.rows, -1), h[:, :, column : column + rank], own)
            column += rank


@lru_cache(maxsize=256)
def runs(starts: tuple[int, ...], parts: tuple[tuple[int, ...], ...], segments: Segments) -> tuple[Run, ...]:
    """The segments as few batches: equal rows, equal ranks, updates in the order of the pack.

    `starts` and `parts` as in `Slices`. Kept, since every module of a pass with the same ranks asks for the same.
    """
    found: list[Run] = []
    for low, high, update, scale in segments.joined:
        if starts[update] == starts[update + 1]:
            continue
        run = Run(low, high - low, update, tuple(part[update + 1] - part[update] for part in parts), (scale,))
        if found and found[-1].next(run):
            last = found.pop()
            run = last._replace(scales=(*last.scales, scale))
        found.append(run)
    return tuple(found)


# A batch of one is computed as a plain product, and MKL's plain product sums rank one in another order: such a
# batch is made one of two, both the same.


def _product(x: Tensor, a: Tensor) -> Tensor:
    if len(x) == 1 == a.shape[2]:
        return _product(x.expand(2, -1, -1), a.expand(2, -1, -1))[:1]
    return x.bmm(a)


def _add_product(y: Tensor, h: Tensor, b: Tensor) -> None:
    if len(h) == 1 == h.shape[2]:
        y.copy_(y.expand(2, -1, -1).baddbmm(h.expand(2, -1, -1), b.expand(2, -1, -1))[:1])
    else:
        y.baddbmm_(h, b)


@lru_cache(maxsize=256)
def _column(scales: tuple[float, ...], dtype: dtype, device: device) -> Tensor:
    """Scales as (n, 1, 1) in float32 or better, in which they multiply; kept, each module asks for the same."""
    import torch

    better = torch.promote_types(dtype, torch.float32)
    return torch.tensor(scales, dtype=better, device=device)[:, None, None]
