"""Random packs, rows and segments for the tests and benchmarks of the kernels, and how far apart results may be."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch

from loramerge.kernels import grouped
from loramerge.kernels.pack import Pack, Segments


def normal(*sides, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*sides, generator=generator, dtype=torch.float64).to(dtype)


def updates(ranks, inputs=40, out=24, *, seed=0, dtype=torch.float64):
    """Random pairs (b (out, r), a (r, in)), an update for each rank."""
    return [
        (normal(out, r, seed=seed + 2 * i, dtype=dtype), normal(r, inputs, seed=seed + 2 * i + 1, dtype=dtype))
        for i, r in enumerate(ranks)
    ]


def pack(ranks, inputs=40, out=24, *, seed=0, dtype=torch.float64):
    return Pack.of(updates(ranks, inputs, out, seed=seed, dtype=dtype))


def wide(pack):
    """The same pack in float64."""
    return Pack(pack.a.double(), pack.b.double(), pack.starts)


def rows(segments, inputs, out, *, dtype=torch.float64):
    """Random x and y for some segments."""
    return normal(segments.rows, inputs, seed=90, dtype=dtype), normal(segments.rows, out, seed=91, dtype=dtype)


def mixed(lengths, updates, *, seed=0):
    """Segments of these lengths, each with a random update out of so many, or with none; each its own scale."""
    which = torch.randint(-1, updates, (len(lengths),), generator=torch.Generator().manual_seed(seed)).tolist()
    return Segments((0, *accumulate(lengths)), tuple(which), tuple(0.9 - 0.4 * i for i in range(len(lengths))))


def bound(y, x, pack, segments, *, truncates=False):
    """How far each output may be from the exact y, where factors, the middle and y are kept in x's dtype.

    With u the unit roundoff of sums (float32 or better) and e that of the dtype, and S the root of the sum of squares
    of all products B·A·x that an output sums: the roundings of k sums of independent sign give √k · u · S, those of
    what is kept between the products e · S each (four at most). 8 is for the tail of that; the last rounding, of y
    itself, is not random: e · |y|, and twice that where a cast truncates (Triton's interpreter, to bfloat16).
    """
    u, e = (torch.finfo(dtype).eps / 2 for dtype in (torch.promote_types(x.dtype, torch.float32), x.dtype))
    squares = Pack(pack.a.double() ** 2, pack.b.double() ** 2, pack.starts)
    of_squares = Segments(segments.bounds, segments.which, tuple(scale**2 for scale in segments.scales))
    s = grouped.reference(x.double() ** 2, squares, of_squares).sqrt()
    k = x.shape[1] + max(after - before for before, after in pairwise(pack.starts))
    return 8 * (k * u**2 + 4 * e**2) ** 0.5 * s + (1 + truncates) * e * y.abs()
