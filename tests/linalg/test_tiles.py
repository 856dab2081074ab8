from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import ShapeMismatch
from loramerge.linalg import tiles
from loramerge.linalg.tiles import Blocks, Stack, Tiles, height


@pytest.fixture
def low(monkeypatch):
    """Tiles of two updates of (24, 40) in float64 have four rows."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 2 * 40 * 8)


def test_tiles_are_the_rows_of_the_dense_updates(draw, low):
    updates = [draw(3, scale=-2.0), draw(5)]

    found = list(Tiles(updates))

    assert [start for start, _ in found] == [0, 4, 8, 12, 16, 20]
    want = torch.stack([update.dense() for update in updates])
    torch.testing.assert_close(torch.cat([tile for _, tile in found], dim=1), want)


def test_a_last_tile_is_lower(draw, low):
    updates = [draw(3, (10, 40)), draw(5, (10, 40))]

    assert [tuple(tile.shape) for _, tile in Tiles(updates)] == [(2, 4, 40), (2, 4, 40), (2, 2, 40)]


def test_a_pass_can_be_repeated_and_tiles_written_into(draw, low):
    made = Tiles([draw(3), draw(5)])
    first = [tile.clone() for _, tile in made]

    for _, tile in made:
        tile.zero_()

    assert all(torch.equal(x, y) for x, (_, y) in zip(first, made, strict=True))


def test_a_middle_factor_is_multiplied_in(draw):
    update = draw(3)
    mid = draw(3, (3, 3)).dense()

    found = Tiles([LowRank(b=update.b, mid=mid, a=update.a, scale=0.5)])

    torch.testing.assert_close(next(iter(found))[1][0], 0.5 * update.b @ mid @ update.a)


def test_half_precision_is_computed_in_single_and_double_in_double(draw):
    half, double = draw(3, dtype=torch.bfloat16), draw(3)

    assert Tiles([half, half]).dtype == torch.float32
    assert Tiles([half, double]).dtype == torch.float64
    want = (half.b.float() @ half.a.float()) * half.scale
    torch.testing.assert_close(next(iter(Tiles([half])))[1][0], want)


def test_updates_of_different_shapes_are_refused(draw):
    with pytest.raises(ShapeMismatch):
        Tiles([draw(3), draw(3, (24, 41))])


@pytest.mark.parametrize(
    ("count", "shape", "rows"),
    [(4, (4096, 4096), 64), (4, (4096, 4097), 32), (1, (10, 8), 10), (2000, (1024, 4096), 1)],
)
def test_a_tile_is_as_high_as_fits(count, shape, rows):
    assert height(count, shape, 4) == rows


def test_a_stack_is_one_tile_that_may_be_written_into():
    stacked = torch.arange(24.0).reshape(2, 3, 4)
    made = Stack(stacked)

    for start, tile in made:
        assert start == 0
        tile.zero_()

    assert made.shape == (3, 4)
    assert torch.equal(next(iter(made))[1], torch.arange(24.0).reshape(2, 3, 4))


def test_blocks_are_what_a_rule_makes_of_tiles(draw, low):
    updates = [draw(3), draw(5)]

    found = Blocks(Tiles(updates), lambda start, tile: tile.sum(0) + start)

    rows = torch.arange(24).div(4, rounding_mode="floor") * 4.0
    torch.testing.assert_close(found.dense(), updates[0].dense() + updates[1].dense() + rows[:, None])
