from __future__ import annotations

import torch

from loramerge.core.lowrank import LowRank
from loramerge.linalg.measure import relative_error, unit_norms
from loramerge.methods._method import Context
from loramerge.methods.merge.cat import METHOD, Options, concatenate


def merge(updates, *weights):
    return concatenate(updates, Options(), Context("layer.0", weights)).delta


def test_nothing_is_lost(draw):
    updates = [draw(4, scale=2.0), draw(33, scale=1e-3), draw(1, scale=-5.0)]

    merged = merge(updates, 1.0, -2.0, 0.1)

    assert merged.rank == 38
    assert relative_error(merged, [u.times(w) for u, w in zip(updates, (1.0, -2.0, 0.1), strict=True)]) <= 1e-14


def test_every_unit_stays_one(draw):
    x, y = draw(4, scale=2.0), draw(3, scale=-0.5)

    merged = merge([x, y], 1.0, 3.0)

    torch.testing.assert_close(unit_norms(merged), torch.cat([unit_norms(x), 3.0 * unit_norms(y)]))


def test_units_come_out_balanced():
    update = LowRank(b=torch.tensor([[8.0], [0.0]]), a=torch.tensor([[0.0, 2.0]]))

    merged = merge([update], 1.0)

    torch.testing.assert_close(merged.b, torch.tensor([[4.0], [0.0]], dtype=torch.float64))
    torch.testing.assert_close(merged.a, torch.tensor([[0.0, 4.0]], dtype=torch.float64))


def test_the_inputs_are_not_written_into(draw):
    update = draw(4, scale=-3.0)
    a, b = update.a.clone(), update.b.clone()

    merged = merge([update], 2.0)

    torch.testing.assert_close(merged.a.norm(dim=1), merged.b.norm(dim=0))
    assert torch.equal(update.a, a)
    assert torch.equal(update.b, b)


def test_biases_are_weighted_with_their_scales(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(3, bias=True)

    torch.testing.assert_close(merge([x, y], 0.5, -1.0).bias, 1.0 * x.bias - y.bias)


def test_the_rank_is_its_own_and_weights_are_one_unless_said():
    assert METHOD.rank == "own"
    assert METHOD.weights == "sum"
