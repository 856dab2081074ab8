from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.linalg.measure import relative_error
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.linear import METHOD


def merge(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights)).delta


def test_the_sum_of_two_updates_is_the_dense_sum(draw):
    x, y = draw(4, scale=2.0), draw(7, scale=1e-3)

    merged = merge([x, y], 0.3, -0.7)

    assert merged.rank == 11
    torch.testing.assert_close(merged.dense(), 0.3 * x.dense() - 0.7 * y.dense())


def test_a_sum_worked_out_by_hand():
    x = LowRank(b=torch.tensor([[1.0], [0.0]]), a=torch.tensor([[1.0, 2.0]]), scale=8.0)
    y = LowRank(b=torch.tensor([[1.0], [1.0]]), a=torch.tensor([[0.0, 1.0]]))

    assert merge([x, y], 0.5, 1.0).dense().tolist() == [[4.0, 9.0], [0.0, 1.0]]


def test_products_of_factors_of_different_adapters_do_not_appear(draw):
    x = draw(4)

    merged = merge([x, LowRank(b=-x.b, a=-x.a)], 0.5, 0.5)

    torch.testing.assert_close(merged.dense(), x.dense())


def test_biases_are_weighted_with_their_scales(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(3, bias=True)

    torch.testing.assert_close(merge([x, y, draw(1)], 0.5, -1.0, 1.0).bias, 1.0 * x.bias - y.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nothing_is_rounded_to_the_inputs_precision(draw, dtype):
    x, y = draw(4, scale=0.3, dtype=dtype), draw(4, scale=0.7, dtype=dtype)
    want = [update.to(dtype=torch.float64).times(1 / 3) for update in (x, y)]

    assert relative_error(merge([x, y], 1 / 3, 1 / 3), want) <= 1e-14


def test_each_counts_for_one_nth_unless_said():
    assert METHOD.weights == "mean"
    assert METHOD.rank == "free"
