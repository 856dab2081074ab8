"""What Triton's kernels have to hold, in the interpreter and on a GPU: each function says whether it does."""

from __future__ import annotations

import torch
from draws import bound, mixed, normal, pack, rows, wide

from loramerge.kernels import grouped, linear
from loramerge.kernels._triton import base_plus_lora
from loramerge.kernels._triton import grouped as compiled
from loramerge.kernels.pack import Pack, Segments, Slices

SMALL = ("ranks", "segments", "sides"), [
    ([3, 0, 16, 40], Segments((0, 5, 5, 50, 52, 60, 63), (0, 1, 2, -1, 3, 1), (1.0, 2.0, 0.5, 1.0, -1.5, 3.0)),
     (100, 70)),
    ([8], Segments.equal([0], [2.0], 33), (64, 128)),
    ([16, 8, 1, 4], Segments.equal([2, 0, 3, 1], [1.0, 0.5, 2.0, -1.0], 1), (37, 61)),
    ([1, 128, 17, 2], mixed([7, 0, 20, 33, 1, 12], 4), (96, 33)),
    ([4, 4], Segments.equal([-1, 1, -1], [1.0, 1.0, 1.0], 9), (40, 1)),
    ([16], Segments.equal([0], [1.0], 3), (2500, 24)),
]  # fmt: skip
NAMES = ["mixed ranks and gaps", "one adapter", "all different", "ranks 1 to 128", "mostly base", "split sum"]


def placed(pack, device):
    return Pack(pack.a.to(device), pack.b.to(device), pack.starts)


def _within(y, exact, most):
    return bool(((y.double() - exact).abs() <= most).all())


def agrees(device, dtype, ranks, segments, sides, shape=None):
    packed = placed(pack(ranks, *sides, dtype=dtype), device)
    x, y = (t.to(device) for t in rows(segments, *sides, dtype=dtype))
    exact = y.double() + grouped.reference(x.double(), wide(packed), segments)

    compiled.add_([y], x, packed.alone, segments, shape=shape)

    truncates = device == "cpu" and dtype == torch.bfloat16
    return _within(y, exact, bound(exact, x, packed, segments, truncates=truncates))


def fuses(device, dtype, ranks, segments, sides, *, bias, shape=None):
    packed = placed(pack(ranks, *sides, dtype=dtype), device)
    x, _ = (t.to(device) for t in rows(segments, *sides, dtype=dtype))
    weight = normal(sides[1], sides[0], seed=7, dtype=dtype).to(device)
    offset = normal(sides[1], seed=8, dtype=dtype).to(device) if bias else None
    exact = linear.reference(
        x.double(), weight.double(), None if offset is None else offset.double(), wide(packed), segments
    )

    y = base_plus_lora.launch(x, weight, offset, packed.alone, segments, shape=shape)

    truncates = device == "cpu" and dtype == torch.bfloat16
    # The base is one more update, of as many units as there are outputs: an identity times the weight.
    unit = torch.eye(sides[1], dtype=dtype, device=device)
    base = bound(exact, x, Pack.of([(unit, weight)]), Segments.equal([0], [1.0], len(x)))
    return _within(y, exact, base + bound(exact, x, packed, segments, truncates=truncates))


def shares(device, dtype):
    """Four modules that read the same rows: two launches of the second kernel."""
    ranks, outs = ([4, 0, 20], [2, 3, 0], [0, 0, 7], [1, 16, 2]), (24, 8, 8, 130)
    packs = [placed(pack(own, 96, out, seed=out, dtype=dtype), device) for own, out in zip(ranks, outs, strict=True)]
    segments = Segments((0, 5, 40, 45, 49), (0, 1, 2, -1), (1.0, 0.5, 2.0, 1.0))
    x = normal(49, 96, dtype=dtype).to(device)
    ys = [normal(49, out, seed=out, dtype=dtype).to(device) for out in outs]
    exact = [y.double() + grouped.reference(x.double(), wide(one), segments) for y, one in zip(ys, packs, strict=True)]

    grouped.add_slices_(ys, x, Slices.of(packs), segments, backend="triton")

    return all(
        _within(y, expected, bound(expected, x, one, segments))
        for y, one, expected in zip(ys, packs, exact, strict=True)
    )


def same_alone(device, dtype, sides, *, fused):
    """Bits of an adapter's rows: again, alone, and in another order beside others of other lengths and ranks."""
    packed = placed(pack([8, 40, 1, 16], *sides, dtype=dtype), device)
    lengths, scales = [7, 33, 1, 12], [1.0, 0.5, 2.0, -1.0]
    xs = [normal(length, sides[0], seed=length, dtype=dtype).to(device) for length in lengths]
    weight = normal(sides[1], sides[0], seed=7, dtype=dtype).to(device)

    def outputs(order):
        bounds = torch.tensor([0, *(lengths[i] for i in order)]).cumsum(0).tolist()
        segments, x = (
            Segments(tuple(bounds), tuple(order), tuple(scales[i] for i in order)),
            torch.cat([xs[i] for i in order]),
        )
        if fused:
            y = base_plus_lora.launch(x, weight, None, packed.alone, segments)
        else:
            y = grouped.add_(x.new_ones(len(x), sides[1]), x, packed, segments, backend="triton")
        return dict(zip(order, y.split([lengths[i] for i in order]), strict=True))

    together, again, other = outputs([0, 1, 2, 3]), outputs([0, 1, 2, 3]), outputs([3, 1, 0])

    pairs = [(together[i], again[i]) for i in range(4)]
    pairs += [(together[i], outputs([i])[i]) for i in (0, 1)]
    pairs += [(together[i], other[i]) for i in (0, 1, 3)]
    return all(torch.equal(one, same) for one, same in pairs)


def stays_inside(device):
    """Rows that lie apart, and rows of no update: nothing else is written."""
    packed = placed(pack([4, 4, 2], dtype=torch.float32), device)
    segments = Segments((0, 5, 9, 15), (0, -1, 2), (1.0, 2.0, 3.0))
    x, whole = normal(15, 50, dtype=torch.float32).to(device)[:, 3:43], normal(15, 60, dtype=torch.float32).to(device)
    before, y = whole.clone(), whole[:, 8:32]
    exact = y.double() + grouped.reference(x.double(), wide(packed), segments)

    grouped.add_(y, x, packed, segments, backend="triton")

    untouched = [(whole[:, :8], before[:, :8]), (whole[:, 32:], before[:, 32:]), (y[5:9], before[5:9, 8:32])]
    right = _within(y, exact, bound(exact, x, packed, segments))
    return right and all(torch.equal(one, same) for one, same in untouched)
