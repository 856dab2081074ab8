from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank, cat
from loramerge.linalg import measure

SHAPES = [(24, 40), (40, 24), (5, 9), (1, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_those_of_the_dense_update(draw, shape):
    update = draw(7, shape, scale=-3.0)
    want = torch.linalg.svdvals(update.dense())

    found = measure.singular_values(update)

    torch.testing.assert_close(found, want[: len(found)])
    assert float(want[len(found) :].norm()) <= 1e-12 * float(want.norm())


def test_small_singular_values_are_not_squared_away(draw):
    q, p = torch.linalg.qr(draw(3).b).Q, torch.linalg.qr(draw(3).a.T).Q
    values = torch.tensor([1.0, 1e-6, 1e-12], dtype=torch.float64)

    found = measure.singular_values(LowRank(b=q * values, a=p.T))

    torch.testing.assert_close(found, values, rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_and_inner_products_are_those_of_the_dense_updates(draw, shape):
    x, y = draw(7, shape, scale=2.0), draw(3, shape, scale=-0.1)

    assert measure.norm(x) == pytest.approx(float(x.dense().norm()))
    assert measure.inner(x, y) == pytest.approx(float((x.dense() * y.dense()).sum()))


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_norm_is_right_where_units_cancel(draw, shape):
    x, left = draw(4, shape), draw(2, shape, scale=1e-12)

    found = measure.norm(cat([x, x.times(-1.0), left]))

    assert found == pytest.approx(float(left.dense().norm()), rel=1e-3)


def test_the_gram_matrix_holds_all_inner_products(draw):
    updates = [draw(7, scale=2.0), draw(3, scale=-0.1), draw(12)]

    found = measure.gram(updates)

    want = torch.tensor([[measure.inner(x, y) for y in updates] for x in updates], dtype=torch.float64)
    torch.testing.assert_close(found, want)


def test_a_tiny_error_is_measured_exactly(draw):
    update, off = draw(6), draw(2)
    size = 1e-10 * measure.norm(update) / measure.norm(off)

    found = measure.relative_error(cat([update, off.times(size)]), [update])

    assert found == pytest.approx(1e-10, rel=1e-4)


def test_the_error_of_a_sum_is_against_the_sum(draw):
    x, y, got = draw(3, scale=2.0), draw(4, scale=-1.0), draw(5)
    want = x.dense() + y.dense()

    found = measure.relative_error(got, [x, y])

    assert found == pytest.approx(float((got.dense() - want).norm() / want.norm()))


def test_against_zero_an_error_is_all_or_nothing(draw):
    update = draw(3)

    assert measure.relative_error(update.times(0.0), [update.times(0.0)]) == 0.0
    assert measure.relative_error(update, [update.times(0.0)]) == math.inf


def test_half_precision_is_measured_in_double(draw):
    update = draw(4, dtype=torch.float16)

    assert measure.norm(update) == pytest.approx(float(update.to(dtype=torch.float64).dense().norm()), rel=1e-12)


def test_a_unit_is_as_large_as_its_product(draw):
    update = draw(5, scale=-2.0)

    found = measure.unit_norms(update)

    products = [2.0 * torch.outer(update.b[:, j], update.a[j]).norm() for j in range(5)]
    torch.testing.assert_close(found, torch.stack(products))


@pytest.mark.parametrize(
    ("spectrum", "rank"), [([1.0, 1.0, 1.0, 1.0], 4.0), ([5.0], 1.0), ([1.0, 0.0], 1.0), ([0.0, 0.0], 0.0), ([], 0.0)]
)
def test_the_effective_rank_counts_equal_values(spectrum, rank):
    assert measure.effective_rank(torch.tensor(spectrum, dtype=torch.float64)) == pytest.approx(rank)


def test_the_numerical_rank_leaves_out_rounding(draw):
    update = draw(4, dtype=torch.float32)
    doubled = cat([update.to(dtype=torch.float64).folded(), update.to(dtype=torch.float64).folded()])

    spectrum = measure.singular_values(doubled)

    assert len(spectrum) == 8
    assert measure.numerical_rank(spectrum, doubled.shape) == 4
    assert measure.numerical_rank(torch.zeros(3), doubled.shape) == 0
    assert measure.numerical_rank(torch.zeros(0), doubled.shape) == 0
