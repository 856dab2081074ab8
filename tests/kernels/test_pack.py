from __future__ import annotations

import pytest
import torch
from draws import pack, updates

from loramerge.errors import ShapeMismatch
from loramerge.kernels.pack import Pack, Segments, Slices


def test_a_pack_holds_the_units_of_each_update_and_nothing_else():
    pairs = updates([3, 0, 20])

    packed = Pack.of(pairs, dtype=torch.float32)

    assert packed.starts == (0, 3, 3, 23)
    assert packed.a.shape == (23, 40)
    assert packed.b.shape == (23, 24)
    assert packed.a.dtype == torch.float32
    for i, (b, a) in enumerate(pairs):
        assert torch.equal(packed.b[packed.rows(i)].T @ packed.a[packed.rows(i)], b.float() @ a.float())


@pytest.mark.parametrize("pairs", [[], updates([3]) + updates([3], 41), [(torch.ones(24, 2), torch.ones(3, 40))]])
def test_what_is_not_of_one_module_is_no_pack(pairs):
    with pytest.raises(ShapeMismatch, match="no updates of one module"):
        Pack.of(pairs)


def test_rows_in_any_order_are_sorted_stably_with_those_without_an_adapter_first():
    order, segments = Segments.sorted([1, 1, 2, -1, -1, 1], scales=[0.5, 1.0, 2.0])

    assert order == [3, 4, 0, 1, 5, 2]
    assert segments == Segments((0, 2, 5, 6), (-1, 1, 2), (0.0, 1.0, 2.0))


def test_segments_of_equal_length():
    assert Segments.equal([2, 0], [1.0, 0.5], rows=3) == Segments((0, 3, 6), (2, 0), (1.0, 0.5))


def test_neighbours_of_one_update_and_scale_are_one_and_empty_ones_are_none():
    segments = Segments((0, 2, 2, 4, 6, 7, 9), (1, 0, 1, 1, -1, 1), (2.0, 1.0, 2.0, 3.0, 1.0, 3.0))

    assert segments.joined == ((0, 4, 1, 2.0), (4, 6, 1, 3.0), (7, 9, 1, 3.0))


@pytest.mark.parametrize(
    ("bounds", "which"), [((0, 2), (0, 1)), ((1, 2), (0,)), ((0, 3, 2), (0, 1))], ids=["count", "start", "falling"]
)
def test_bounds_rise_from_zero_with_an_update_for_each_run(bounds, which):
    with pytest.raises(ShapeMismatch):
        Segments(bounds, which, (1.0,) * len(which))


def test_slices_hold_the_units_of_an_update_together():
    packs = [pack([2, 1], seed=1), pack([1, 3], out=8, seed=9)]

    slices = Slices.of(packs)

    assert slices.starts == (0, 3, 7)
    assert torch.equal(slices.a[3:7], torch.cat([packs[0].a[2:3], packs[1].a[1:4]]))


def test_packs_of_different_updates_are_no_slices():
    with pytest.raises(ShapeMismatch, match="do not read the same rows"):
        Slices.of([pack([2]), pack([2, 2])])
