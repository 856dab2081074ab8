from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.core.updates import Updates
from loramerge.errors import ShapeMismatch
from loramerge.linalg.stored import blocks, stored


def test_units_stand_side_by_side_as_they_are_stored(draw):
    x, y = draw(2, scale=-2.0, bias=True, dtype=torch.bfloat16), draw(3, scale=0.5)

    units = stored([x, y])

    assert torch.equal(units.b, torch.cat([x.b.double(), y.b], dim=1))
    assert torch.equal(units.a, torch.cat([x.a.double(), y.a]))
    assert units.scale.tolist() == [-2.0, -2.0, 0.5, 0.5, 0.5]
    assert torch.equal(units.bias, x.bias.double() * -2.0)


@pytest.mark.parametrize(("rank", "inner"), [(3, 5), (5, 3)])
def test_a_middle_factor_is_multiplied_into_the_side_that_leaves_fewer_units(draw, rank, inner):
    b, mid, a = draw(rank).b, draw(rank, (rank, inner)).dense(), draw(inner).a
    update = LowRank(b=b, mid=mid, a=a)

    units = stored([update])

    assert units.b.shape[1] == 3
    torch.testing.assert_close(units.b @ units.a, b @ mid @ a)


@pytest.mark.parametrize(("limit", "sizes"), [(5, [5, 5, 3]), (4, [4, 1, 5, 3]), (100, [13])])
def test_blocks_hold_no_more_than_the_limit_or_one_update(draw, limit, sizes):
    updates = Updates.of([draw(rank) for rank in (4, 1, 5, 3)])

    found = [(units.b @ (units.a * units.scale[:, None]), units.b.shape[1]) for units in blocks(updates, limit)]

    assert [width for _, width in found] == sizes
    torch.testing.assert_close(sum(part for part, _ in found), sum(update.dense() for update in updates))


def test_units_of_different_shapes_do_not_stand_side_by_side(draw):
    with pytest.raises(ShapeMismatch):
        stored([draw(2), draw(2, (5, 9))])
