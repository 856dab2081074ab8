"""y += scale · B A x for rows in segments, an update each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from loramerge.errors import ShapeMismatch
from loramerge.kernels import _torch
from loramerge.kernels.dispatch import backend as choose
from loramerge.kernels.pack import Pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from loramerge.kernels.dispatch import Backend
    from loramerge.kernels.pack import Segments, Slices


def reference(x: Tensor, pack: Pack, segments: Segments) -> Tensor:
    """The definition: row t of update i gives scale · B_i A_i x_t, and zero where it belongs to none.

    x (T, in) -> (T, out), in x's dtype.
    """
    y = x.new_zeros(x.shape[0], pack.b.shape[1])
    for low, high, update, scale in segments:
        if update >= 0:
            y[low:high] = (x[low:high] @ pack.a[pack.rows(update)].T) * scale @ pack.b[pack.rows(update)]
    return y


def add_(y: Tensor, x: Tensor, pack: Pack, segments: Segments, *, backend: Backend | None = None) -> Tensor:
    """y (T, out) += what `reference` gives for x (T, in), in place; returns y.

    x, y and the pack have one dtype; x and y may be views whose rows are contiguous. How far a row's bits depend on
    its neighbours is said in `_torch` and `_triton`. Raises ShapeMismatch.
    """
    add_slices_((y,), x, pack.alone, segments, backend=backend)
    return y


def add_slices_(
    ys: Sequence[Tensor], x: Tensor, slices: Slices, segments: Segments, *, backend: Backend | None = None
) -> None:
    """`add_` for modules that read the same rows: the product with the A's is made once for all of them."""
    check([y.shape for y in ys], x, slices, segments)
    most = rank(slices.starts, segments)
    if not most:
        return
    name = choose(x.device.type, x.dtype, len(x), most, backend)
    if name == "triton":
        from loramerge.kernels._triton import grouped

        grouped.add_(ys, x, slices, segments)
    elif name == "torch":
        _torch.add_(ys, x, slices, segments)
    else:
        for y, pack in zip(ys, _packs(slices), strict=True):
            y += reference(x, pack, segments)


def _packs(slices: Slices) -> list[Pack]:
    """The modules' own packs again; the A's are copied."""
    import torch

    found = []
    for j, (b, part) in enumerate(zip(slices.bs, slices.parts, strict=True)):
        before = [slices.starts[i] + sum(slices.ranks(i)[:j]) for i in range(len(slices))]
        rows = [slices.a[first : first + slices.ranks(i)[j]] for i, first in enumerate(before)]
        found.append(Pack(torch.cat(rows), b, part))
    return found


@lru_cache(maxsize=256)
def rank(starts: tuple[int, ...], segments: Segments) -> int:
    """The most units that an update of some rows has, all modules together; kept, each module asks for the same.

    Raises ShapeMismatch where segments name an update that is not there.
    """
    if max(segments.which, default=-1) > len(starts) - 2:
        raise ShapeMismatch(f"Segments name update {max(segments.which)}, and there are {len(starts) - 1}.")
    return max((starts[update + 1] - starts[update] for _, _, update, _ in segments.joined), default=0)


def check(ys: Sequence[tuple[int, ...]], x: Tensor, slices: Slices, segments: Segments) -> None:
    """Raise ShapeMismatch where rows x, outputs of shapes `ys`, updates and segments do not go together."""
    outs = [b.shape[1] for b in slices.bs]
    if x.shape != (segments.rows, slices.a.shape[1]) or list(ys) != [(len(x), out) for out in outs]:
        shapes = ", ".join(str(tuple(shape)) for shape in ys)
        raise ShapeMismatch(
            f"Rows {tuple(x.shape)} -> {shapes} do not go with updates {slices.a.shape[1]} -> {outs}"
            f" and {segments.rows} rows in segments."
        )
