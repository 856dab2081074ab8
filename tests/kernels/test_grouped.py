from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from draws import bound, mixed, normal, pack, rows, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.errors import ShapeMismatch
from loramerge.kernels import _torch, grouped
from loramerge.kernels.pack import Segments, Slices

# float16 is left out where bits are compared: oneDNN's batched product of it depends on the batch.
EXACT = [torch.float64, torch.float32, torch.bfloat16]
mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="looked at with MKL only")


@settings(max_examples=80, deadline=None)
@given(
    ranks=st.lists(st.sampled_from([0, 1, 2, 3, 8, 16, 17, 128]), min_size=1, max_size=5),
    runs=st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 4)), max_size=8),
    sides=st.sampled_from([(1, 1), (40, 24), (37, 61), (96, 33)]),
    dtype=st.sampled_from([*EXACT, torch.float16]),
    backend=st.sampled_from(["torch", "reference"]),
)
def test_any_segments_give_what_float64_gives(ranks, runs, sides, dtype, backend):
    packed = pack(ranks, *sides, dtype=dtype)
    which = tuple(min(update, len(ranks) - 1) for _, update in runs)
    bounds = (0, *accumulate(length for length, _ in runs))
    segments = Segments(bounds, which, tuple(0.9 - 0.4 * i for i in range(len(which))))
    x, y = rows(segments, *sides, dtype=dtype)
    exact = y.double() + grouped.reference(x.double(), wide(packed), segments)

    got = grouped.add_(y, x, packed, segments, backend=backend)

    assert got is y
    assert ((got.double() - exact).abs() <= bound(exact, x, packed, segments)).all()


@pytest.mark.parametrize(
    ("which", "lengths"),
    [((2,), (7,)), ((0, 1, 2, 3), (5, 5, 5, 5)), ((3, 1, 1, -1, 0), (4, 0, 3, 6, 2)), ((-1, -1), (3, 4)), ((), ())],
    ids=["one adapter", "all different", "mixed", "no adapter", "no rows"],
)
def test_rows_of_shuffled_requests_get_their_own_update(which, lengths):
    packed = pack([4, 4, 9, 1])
    mapping = [update for update, length in zip(which, lengths, strict=True) for _ in range(length)]
    shuffled = torch.randperm(len(mapping), generator=torch.Generator().manual_seed(1)).tolist()
    mapping = [mapping[t] for t in shuffled]
    scales = [1.0, 0.5, 2.0, -1.0]
    x = normal(len(mapping), 40)

    order, segments = Segments.sorted(mapping, scales)
    y = grouped.add_(torch.zeros(len(mapping), 24, dtype=x.dtype), x[order], packed, segments)

    for place, t in enumerate(order):
        own = packed.rows(mapping[t])
        expected = scales[mapping[t]] * packed.b[own].T @ packed.a[own] @ x[t] if mapping[t] >= 0 else torch.zeros(24)
        assert torch.allclose(y[place], expected.to(x.dtype), rtol=1e-12, atol=1e-12)


@mkl
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("sides", [(37, 61), (384, 96)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 8, 17])
@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_a_rows_bits_do_not_depend_on_the_other_updates_of_the_call(dtype, sides, rank, length):
    packed = pack([rank] * 5, *sides, dtype=dtype)
    scales = [0.3 + 0.1 * i for i in range(5)]
    segments = Segments.equal(range(5), scales, length)
    x, y = rows(segments, *sides, dtype=dtype)
    order = [3, 1, 4, 0, 2]
    permuted = torch.arange(5 * length).reshape(5, length)[order].flatten()

    together = grouped.add_(y.clone(), x, packed, segments)
    again = grouped.add_(y.clone(), x, packed, segments)
    elsewhere = grouped.add_(
        y[permuted], x[permuted], packed, Segments.equal(order, [scales[i] for i in order], length)
    )

    assert torch.equal(together, again)
    assert torch.equal(together[permuted], elsewhere)
    for i in range(5):
        own = slice(i * length, (i + 1) * length)
        alone = grouped.add_(y[own].clone(), x[own], packed, Segments.equal([i], [scales[i]], length))
        assert torch.equal(together[own], alone)


@mkl
def test_a_rows_bits_do_not_depend_on_the_lengths_and_ranks_of_the_others():
    packed = pack([8, 8, 3, 8], 384, 96, dtype=torch.float32)
    segments = Segments((0, 6, 10, 10, 17, 23), (1, 2, 0, -1, 3), (0.5, 1.0, 1.0, 1.0, 2.0))
    x, y = rows(segments, 384, 96, dtype=torch.float32)

    together = grouped.add_(y.clone(), x, packed, segments)

    for own, update, scale in ((slice(0, 6), 1, 0.5), (slice(17, 23), 3, 2.0)):
        alone = grouped.add_(y[own].clone(), x[own], packed, Segments.equal([update], [scale], 6))
        assert torch.equal(together[own], alone)


def test_rows_may_lie_apart():
    packed, segments = pack([4, 4, 2]), Segments.equal([0, 1, 2], [1.0, 2.0, 3.0], 5)
    x, y = normal(15, 50)[:, 3:43], normal(15, 60)[:, 8:32]
    expected = y + grouped.reference(x, packed, segments)

    grouped.add_(y, x, packed, segments)

    assert not x.is_contiguous()
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("ranks", [([4] * 3, [4] * 3, [4] * 3), ([4, 0, 1], [2, 3, 0], [0, 0, 7])], ids=str)
def test_modules_that_read_the_same_rows_get_what_each_gets_alone(ranks, backend):
    packs = [pack(own, out=out, seed=20 * out) for own, out in zip(ranks, (24, 8, 8), strict=True)]
    segments = Segments((0, 5, 10, 15, 19), (0, 1, 2, -1), (1.0, 0.5, 2.0, 1.0))
    x = normal(19, 40)
    ys = [normal(19, out, seed=out) for out in (24, 8, 8)]
    expected = [grouped.add_(y.clone(), x, one, segments) for y, one in zip(ys, packs, strict=True)]

    grouped.add_slices_(ys, x, Slices.of(packs), segments, backend=backend)

    for y, alone in zip(ys, expected, strict=True):
        assert torch.allclose(y, alone, rtol=1e-12, atol=1e-12)


def test_equal_neighbours_are_one_batch_on_views():
    packed = pack([4] * 6 + [2])
    segments = Segments.equal([1, 2, 3, 5, 6], [1.0, 2.0, 3.0, 4.0, 5.0], 8)

    found = _torch.runs(packed.starts, (packed.starts,), segments)

    assert [(run.low, run.update, len(run.scales)) for run in found] == [(0, 1, 3), (24, 5, 1), (32, 6, 1)]


@pytest.mark.parametrize(
    ("sides", "which"), [((9, 40, 24), 0), ((10, 39, 24), 0), ((10, 40, 23), 0), ((10, 40, 24), 2)], ids=str
)
def test_what_does_not_go_together_is_refused(sides, which):
    t, inputs, out = sides

    with pytest.raises(ShapeMismatch):
        grouped.add_(torch.zeros(t, out), torch.zeros(t, inputs), pack([3, 3]), Segments.equal([which], [1.0], 10))


def test_a_mixture_is_linear_in_its_scales():
    packed, segments = pack([4, 7, 1]), mixed([3, 4, 5, 2], 3)
    double = Segments(segments.bounds, segments.which, tuple(2 * scale for scale in segments.scales))
    x = normal(14, 40)

    once, twice = (grouped.add_(x.new_zeros(14, 24), x, packed, s) for s in (segments, double))

    assert torch.equal(2 * once, twice)
