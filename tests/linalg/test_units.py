from __future__ import annotations

import pytest
import torch

from loramerge.linalg.units import Units, nothing, pool, total_bias


@pytest.fixture
def units(draw):
    return pool([draw(5, scale=-2.0), draw(3, scale=1e-3)])


def products(units):
    return torch.einsum("no,ni->noi", units.b, units.a)


def test_a_pool_holds_every_unit_and_its_owner(draw):
    x, y = draw(2, scale=-2.0), draw(3, dtype=torch.float16)

    units = pool([x, y])

    assert units.owner.tolist() == [0, 0, 1, 1, 1]
    torch.testing.assert_close(products(units)[:2].sum(0), x.dense())
    torch.testing.assert_close(products(units)[2:].sum(0), y.to(dtype=torch.float64).dense())


@pytest.mark.parametrize("change", [Units.balanced, Units.signed], ids=["balanced", "signed"])
def test_rewriting_units_changes_no_product(units, change):
    torch.testing.assert_close(products(change(units)), products(units))


def test_balanced_units_are_as_long_on_both_sides(draw):
    flat = pool([draw(4, scale=-3.0)]).balanced()

    torch.testing.assert_close(flat.a.norm(dim=1), flat.b.norm(dim=1))


def test_half_a_unit_is_none(draw):
    update = draw(2)
    update.b[:, 0] = 0

    found = pool([update]).balanced()

    assert not found.a[0].any()
    assert found.a[1].any()


def test_the_sign_of_a_unit_is_settled(units):
    turned = Units(-units.a, -units.b, units.owner)

    assert torch.equal(units.signed().a, turned.signed().a)
    assert torch.equal(units.signed().b, turned.signed().b)


def test_normalized_halves_have_length_one(units):
    found = units.normalized()

    torch.testing.assert_close(found.a.norm(dim=1), torch.ones(8).double())
    torch.testing.assert_close(found.b.norm(dim=1), torch.ones(8).double())


def test_the_order_depends_on_numbers_only(units):
    shuffled = units.take(torch.tensor([3, 7, 0, 5, 1, 6, 2, 4]))

    ordered = units.ordered()

    assert torch.equal(shuffled.ordered().a, ordered.a)
    assert torch.equal(shuffled.ordered().b, ordered.b)
    assert torch.equal(shuffled.ordered().owner, ordered.owner)
    assert (ordered.sizes().diff() <= 0).all()


def test_units_of_one_size_are_ordered_too():
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, 1.0]], dtype=torch.float64)
    units = Units(a, torch.ones(4, 1, dtype=torch.float64), torch.arange(4))

    one, other = units.ordered().a, units.take(torch.tensor([2, 3, 0, 1])).ordered().a

    assert torch.equal(one, other)


def test_the_gram_matrix_of_products_needs_no_product(units):
    flat = products(units).flatten(1)

    torch.testing.assert_close(units.gram(product=True), flat @ flat.T)
    torch.testing.assert_close(units.gram(), units.rows() @ units.rows().T)


def test_landmarks_give_products_their_inner_products(units):
    found = units.landmarked(8)

    torch.testing.assert_close(found @ found.T, units.gram(product=True))


def test_fewer_landmarks_span_repeated_units(units):
    repeated = units.take(torch.arange(8).repeat(4))

    found = repeated.landmarked(8)

    assert found.shape[1] <= 8
    torch.testing.assert_close(found[:8] @ found[:8].T, found[8:16] @ found[8:16].T)


def test_biases_add_up_with_their_scales(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(2, bias=True, scale=-1.0)

    torch.testing.assert_close(total_bias([x, y, draw(1)]), 2.0 * x.bias - y.bias)
    assert total_bias([draw(1)]) is None


def test_zero_is_an_update_like_any_other():
    found = nothing((4, 5))

    assert found.shape == (4, 5)
    assert found.rank == 1
    assert not found.dense().any()
