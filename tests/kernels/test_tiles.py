from __future__ import annotations

import inspect

import pytest

from loramerge.errors import BadOption
from loramerge.kernels.pack import Segments

tiles = pytest.importorskip("loramerge.kernels._triton.tiles", reason="Triton is not installed", exc_type=ImportError)


def test_how_a_sum_is_split_depends_on_the_inputs_alone():
    assert list(inspect.signature(tiles.parts).parameters) == ["inputs", "block"]


@pytest.mark.parametrize("inputs", [1, 100, 1024, 1025, 4096, 5000, 14336, 100_000])
@pytest.mark.parametrize("block", [16, 128, 256])
def test_the_parts_of_a_sum_cover_it_once(inputs, block):
    count, chunk = tiles.parts(inputs, block)

    assert chunk % block == 0
    assert count <= 8
    assert (count - 1) * chunk < inputs <= count * chunk


@pytest.mark.parametrize("side", [8, 24, 0])
def test_sides_that_tensor_cores_do_not_take_are_refused(side):
    with pytest.raises(BadOption, match=f"side of {side}"):
        tiles.Shape(m=side)


def test_tiles_never_span_two_updates_and_rows_without_one_have_none():
    segments = Segments((0, 20, 40, 45, 50), (1, 0, -1, 2), (1.0, 2.0, 1.0, 3.0))

    table, scales = tiles.table((0, 4, 9, 9), ((0, 3, 8, 8), (0, 1, 1, 1)), segments, 16, "cpu")

    assert table.tolist() == [
        [0, 16, 4, 5, 0, 3, 5, 5, 1, 0],
        [16, 4, 4, 5, 0, 3, 5, 5, 1, 0],
        [20, 16, 0, 4, 0, 0, 3, 3, 0, 1],
        [36, 4, 0, 4, 0, 0, 3, 3, 0, 1],
    ]
    assert scales.tolist() == [1.0, 1.0, 2.0, 2.0]


def test_every_row_has_a_tile_where_the_base_is_computed_too():
    segments = Segments((0, 3, 40, 45), (-1, 0, -1), (1.0, 2.0, 1.0))

    table, _ = tiles.table((0, 4), ((0, 4),), segments, 32, "cpu", everything=True)

    assert [(row[0], row[1], row[-1]) for row in table.tolist()] == [(0, 3, 0), (3, 32, 4), (35, 5, 4), (40, 5, 0)]
