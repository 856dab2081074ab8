from __future__ import annotations

import torch

from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.analogy import METHOD, shares


def merge(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights))


def test_the_second_is_taken_from_the_first_and_the_third_added(draw):
    a, b, c = draw(2, scale=2.0), draw(3), draw(4)

    torch.testing.assert_close(merge([a, b, c], 1.0, 1.0, 1.0).dense(), a.dense() - b.dense() + c.dense())


def test_weights_multiply_what_they_belong_to(draw):
    a, b, c = draw(2), draw(3), draw(4)

    torch.testing.assert_close(merge([a, b, c], 0.5, 2.0, -1.0).dense(), 0.5 * a.dense() - 2.0 * b.dense() - c.dense())


def test_what_is_averaged_beside_updates_takes_the_same_signs():
    assert METHOD.shares is shares
    assert shares(NoOptions(), (1.0, 0.5, 2.0)) == (1.0, -0.5, 2.0)


def test_it_takes_three_in_their_order():
    assert (METHOD.least, METHOD.most, METHOD.ordered) == (3, 3, True)
