from __future__ import annotations

import torch

from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.negate import METHOD


def merge(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights)).delta


def test_of_one_adapter_it_is_the_opposite(draw):
    update = draw(4, scale=2.0, bias=True)

    found = merge([update], 1.0)

    torch.testing.assert_close(found.dense(), -update.dense())
    torch.testing.assert_close(found.bias, -2.0 * update.bias)


def test_of_several_it_is_the_opposite_of_their_sum(draw):
    x, y = draw(4), draw(7)

    torch.testing.assert_close(merge([x, y], 1.0, 0.5).dense(), -x.dense() - 0.5 * y.dense())


def test_with_what_was_negated_nothing_is_left(draw):
    update = draw(4)

    assert float((merge([update], 1.0).dense() + update.dense()).norm()) == 0.0
