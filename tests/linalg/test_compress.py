from __future__ import annotations

import pytest
import torch
from dense import distance

from loramerge.linalg import ranks
from loramerge.linalg.compress import compress, is_exact
from loramerge.linalg.ranks import RankRule
from loramerge.linalg.tiles import Blocks, Stack, Tiles

LARGE = (1100, 1200)


def blocks(matrix):
    return Blocks(Stack(matrix[None]), lambda start, tile: tile[0])


def normal(*sides, seed=0):
    return torch.randn(*sides, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def decaying():
    """A matrix above what is decomposed as a whole, with singular values 1/√1, 1/√2, … 1/√1100."""
    left, right = (torch.linalg.qr(normal(side, LARGE[0], seed=side)).Q for side in LARGE)
    return left * torch.arange(1, LARGE[0] + 1, dtype=torch.float64).rsqrt() @ right.T


def best(matrix, rank):
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (1, 9)])
@pytest.mark.parametrize("rank", [1, 5, 60])
def test_a_small_matrix_is_approximated_as_well_as_can_be(shape, rank):
    matrix = normal(*shape)
    want = best(matrix, rank)

    found = compress(blocks(matrix), RankRule("fixed", rank), ranks=[4])

    torch.testing.assert_close(found.delta.dense(), want)
    assert found.relative_error == pytest.approx(distance(want, matrix), abs=1e-7)
    assert found.delta.rank == min(rank, *shape)


@pytest.mark.parametrize("text", ["energy:0.9", "sv-ratio:2", "sv-fro:0.9"])
def test_a_rule_that_asks_the_spectrum_gets_all_of_it(text):
    matrix, rule = normal(24, 40), ranks.parse(text)
    values = torch.linalg.svdvals(matrix).tolist()

    found = compress(blocks(matrix), rule, ranks=[4])

    assert found.delta.rank == rule.choose(values, [4])
    assert found.spectrum == pytest.approx(values)


def test_a_large_matrix_is_approximated_nearly_as_well_as_can_be(decaying):
    want = distance(best(decaying, 16), decaying)

    found = compress(blocks(decaying), RankRule("fixed", 16), ranks=[4])

    assert not is_exact(RankRule("fixed", 16), [4], LARGE)
    assert found.delta.rank == 16
    assert want < distance(found.delta.dense(), decaying) < 1.002 * want


def test_the_error_told_is_that_of_the_result(decaying):
    found = compress(blocks(decaying), RankRule("fixed", 16), ranks=[4])

    assert found.relative_error == pytest.approx(distance(found.delta.dense(), decaying), rel=1e-9)


def test_an_error_of_rounding_is_told_as_such(draw):
    # In float32 a difference of squares would say anything up to 1e-4.
    told = [
        compress(Blocks(Tiles([update]), lambda start, tile: tile[0]), RankRule("fixed", 5), ranks=[5]).relative_error
        for update in (draw(5, (600 + more, 700), dtype=torch.float32) for more in range(6))
    ]

    assert max(told) < 1e-6


def test_a_large_matrix_of_low_rank_comes_back(draw):
    updates = [draw(5, LARGE), draw(4, LARGE, scale=0.1)]

    found = compress(Blocks(Tiles(updates), lambda start, tile: tile.sum(0)), RankRule("fixed", 16), ranks=[5, 4])

    assert found.delta.rank == 9
    assert distance(found.delta.dense(), updates[0].dense() + updates[1].dense()) < 1e-9
    assert found.relative_error < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_holding_the_matrix_changes_no_byte(draw, dtype):
    updates = [draw(5, LARGE, dtype=dtype), draw(3, LARGE, scale=2.0, dtype=dtype)]
    made = Blocks(Tiles(updates), lambda start, tile: tile.amax(0))

    held, passed = (compress(made, RankRule("fixed", 8), ranks=[5], hold=hold) for hold in (True, False))

    assert torch.equal(held.delta.b, passed.delta.b)
    assert torch.equal(held.delta.a, passed.delta.a)
    assert held.relative_error == passed.relative_error


def test_the_larger_values_share_their_length_between_both_sides(decaying):
    found = compress(blocks(decaying), RankRule("fixed", 4), ranks=[4])

    torch.testing.assert_close(found.delta.b.norm(dim=0), found.delta.a.norm(dim=1))
    assert found.delta.b.norm(dim=0).square().tolist() == pytest.approx(found.spectrum)


@pytest.mark.parametrize("shape", [(24, 40), LARGE])
def test_a_matrix_of_zeros_is_one_unit_of_zeros(shape):
    bias = torch.ones(shape[0], dtype=torch.float64)

    found = compress(blocks(torch.zeros(shape)), RankRule("fixed", 4), ranks=[4], bias=bias)

    assert found.relative_error == 0.0
    assert found.delta.rank == 1
    assert not bool(found.delta.dense().any())
    assert torch.equal(found.delta.bias, bias)


def test_with_a_metric_outputs_are_as_close_as_can_be():
    matrix, root = normal(24, 40), normal(40, 40, seed=1)
    metric = root @ root.T

    found = compress(blocks(matrix), RankRule("fixed", 5), ranks=[4], metric=metric)

    # ‖(M − X) R‖ is least for the best approximation of M R, taken back by R⁻¹.
    want = best(matrix @ root, 5) @ torch.linalg.inv(root)
    torch.testing.assert_close(found.delta.dense(), want)
    assert found.relative_error == pytest.approx(distance(want @ root, matrix @ root))
