from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import ShapeMismatch
from loramerge.linalg.joint import joint, triplets
from loramerge.linalg.truncate import GRAM_LIMIT

SHAPES = [
    pytest.param((90, 130), (8, 4, 16), id="gram"),
    pytest.param((20, 70), (16, 16), id="more units than rows"),
    pytest.param((70, 20), (16, 16), id="more units than columns"),
    pytest.param((12, 15), (16, 16), id="more units than either"),
    pytest.param((GRAM_LIMIT + 90, GRAM_LIMIT + 60), (GRAM_LIMIT // 2,) * 2 + (33,), id="qr"),
    pytest.param((1, 30), (4,), id="one row"),
]
BASES = ["any", "updates", "factors"]


def identity(size):
    return torch.eye(size, dtype=torch.float64)


def directions(stacked):
    u, s, _ = torch.linalg.svd(stacked, full_matrices=False)
    return u[:, s > 1e-9 * s[0]]


@pytest.fixture
def several(draw):
    """several(shape, ranks) -> updates whose scales span six orders of magnitude, signs changing."""

    def make(shape, ranks, dtype=torch.float64):
        return [draw(r, shape, scale=(-1.0) ** i * 10.0 ** (3 * i - 3), dtype=dtype) for i, r in enumerate(ranks)]

    return make


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(("shape", "ranks"), SHAPES)
def test_cores_are_the_updates_in_orthonormal_bases(several, shape, ranks, basis, right):
    updates = several(shape, ranks)

    found = joint(updates, basis=basis, right=right)

    for side in (found.left, found.right):
        if side is not None:
            torch.testing.assert_close(side.T @ side, identity(side.shape[1]), rtol=0, atol=1e-9)
    largest = max(float(update.dense().norm()) for update in updates)
    for core, update in zip(found.cores, updates, strict=True):
        for lifted in (found.lift(core), found.lift(core.dense())):
            assert float((lifted.dense() - update.dense()).norm()) < 1e-12 * largest


@pytest.mark.parametrize("sides", ["left", "right"])
@pytest.mark.parametrize("basis", ["updates", "factors"])
@pytest.mark.parametrize(("shape", "ranks"), SHAPES)
def test_the_basis_is_the_singular_vectors_of_the_stack(draw, shape, ranks, basis, sides):
    updates = [draw(rank, shape, scale=2.0**-i) for i, rank in enumerate(ranks)]
    whole = [update.dense() for update in updates]
    b, a = [f.b * f.scale**0.5 for f in updates], [f.a * f.scale**0.5 for f in updates]
    left, right = (whole, whole) if basis == "updates" else (b, a)
    stacked = torch.cat(left, dim=1) if sides == "left" else torch.cat(right).T

    got = getattr(joint(updates, basis=basis), sides)

    want = directions(stacked)[:, : got.shape[1]]
    torch.testing.assert_close((got * want).sum(0).abs(), torch.ones(got.shape[1], dtype=torch.float64))


def test_only_the_left_side_can_change(draw):
    updates = [draw(3, scale=2.0), draw(5)]

    found = joint(updates, basis="updates", right=False)

    assert found.right is None
    assert torch.equal(found.cores[1].a, updates[1].a)
    torch.testing.assert_close(found.cores[0].dense(), found.left.T @ updates[0].dense())


def test_the_largest_entry_of_each_direction_is_positive(draw):
    left = joint([draw(3), draw(5)], basis="updates").left

    assert (left.gather(0, left.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("right", [True, False])
def test_the_basis_of_updates_does_not_depend_on_how_they_are_written_down(draw, right):
    updates = [draw(3), draw(5, scale=100.0)]
    turn = draw(5, (5, 5)).dense() + 3 * identity(5)
    turned = [updates[0], replace(updates[1], b=updates[1].b @ turn, a=torch.linalg.solve(turn, updates[1].a))]

    one, two = (joint(given, basis="updates", right=right) for given in (updates, turned))

    torch.testing.assert_close(one.left, two.left)
    torch.testing.assert_close(one.dense(), two.dense())


def test_copies_take_no_further_directions(draw):
    update = draw(5)

    found = joint([update, update, update.times(-2.0)], basis="updates")

    assert found.cores[0].shape == (5, 5)


def test_nearly_equal_updates_keep_their_difference(draw):
    x = draw(4)
    y = replace(x, b=x.b + 1e-7 * draw(4).b)

    found = joint([x, y], basis="updates")

    assert found.cores[0].shape == (8, 4)
    apart = found.cores[1].dense() - found.cores[0].dense()
    torch.testing.assert_close(found.lift(apart).dense(), y.dense() - x.dense(), rtol=1e-6, atol=1e-12)


def test_weak_directions_can_be_left_out():
    update = LowRank(b=identity(3), a=torch.diag(torch.tensor([10.0, 1.0, 0.1], dtype=torch.float64)))

    assert [joint([update], basis="updates", drop=drop).cores[0].shape for drop in (0.0, 0.05, 0.5)] == [
        (3, 3),
        (2, 2),
        (1, 1),
    ]


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("basis", BASES)
def test_updates_of_zero_have_no_directions(draw, basis, right):
    zeros = [LowRank(b=torch.zeros(6, 2), a=torch.ones(2, 8)), LowRank(b=torch.ones(6, 1), a=torch.ones(1, 8), scale=0)]

    assert joint(zeros, basis=basis, right=right).empty
    assert joint([*zeros, draw(2, (6, 8))], basis=basis, right=right).cores[0].dense().norm() == 0


def test_what_is_rounding_is_lifted_to_zero(draw):
    update = draw(5, scale=1e3)
    found = joint([update, update.times(-1.0)])

    lifted = found.lift(found.cores[0].dense() + found.cores[1].dense())

    assert lifted.rank == 1
    assert not lifted.dense().any()


def test_a_middle_factor_is_multiplied_in(draw):
    inner = draw(3, (3, 3))
    update = replace(draw(3), mid=inner.dense(), scale=2.0)

    found = joint([update])

    torch.testing.assert_close(found.lift(found.cores[0]).dense(), update.dense())


def test_updates_of_different_shapes_are_refused(draw):
    with pytest.raises(ShapeMismatch):
        joint([draw(2, (4, 5)), draw(2, (5, 4))])


@pytest.mark.parametrize(("shape", "rank"), [((30, 20), 4), ((6, 9), 8), ((1, 4), 1)])
def test_triplets_are_the_dense_decomposition(draw, shape, rank):
    update = draw(rank, shape, scale=-3.0)

    found = triplets(update, 1e-9)

    assert len(found.s) == min(rank, *shape)
    torch.testing.assert_close(found.s, torch.linalg.svdvals(update.dense())[: len(found.s)])
    torch.testing.assert_close(found.lowrank().dense(), update.dense())


def test_triplets_outside_some_directions_are_those_of_the_rest(draw):
    update = draw(6)
    axes = identity(24)[:, :3]

    rest = triplets(update).outside(axes, 1e-9)

    want = update.dense()
    want[:3] = 0
    torch.testing.assert_close(rest.lowrank().dense(), want)
