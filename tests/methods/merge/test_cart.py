from __future__ import annotations

from math import ceil

import pytest
import torch
from spaces import diagonal, merged, outcome

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"share": 1.0}, set()),
]


UPDATES = [diagonal(6.0, 0.0), diagonal(0.0, 9.0), diagonal(0.0, 0.0)]
MEAN = (1 / 3,) * 3


def test_the_leading_deviations_are_added_to_the_mean():
    # The mean is (2, 3), the deviations (4, −3), (−2, 6) and (−2, −3), of which (4, 0), (0, 6), (0, −3) are left.
    torch.testing.assert_close(merged("cart", UPDATES, MEAN), diagonal(6.0, 6.0).dense())
    torch.testing.assert_close(merged("cart", UPDATES, MEAN, scale=0.5), diagonal(4.0, 4.5).dense())


def test_without_a_cut_it_is_the_mean():
    torch.testing.assert_close(merged("cart", UPDATES, MEAN, share=1.0, scale=7.0), diagonal(2.0, 3.0).dense())


@pytest.mark.parametrize("share", [0.04, 0.3, 1.0])
def test_it_is_the_dense_formula(draw, share):
    updates = [draw(3), draw(8, scale=2.0), draw(5, scale=0.5)]
    weights = (0.5, 0.2, -0.1)
    parts = [3 * weight * update.dense() for weight, update in zip(weights, updates, strict=True)]
    mean = sum(parts) / 3
    want = mean.clone()
    for part in parts:
        u, s, vh = torch.linalg.svd(part - mean)
        k = ceil(share * 16)
        want += 0.7 * (u[:, :k] * s[:k]) @ vh[:k]

    torch.testing.assert_close(merged("cart", updates, weights, share=share, scale=0.7), want)


def test_ranks_are_reported(draw):
    assert outcome("cart", [draw(3), draw(5)], (0.5, 0.5), share=0.25).report == {"ranks": [2, 2]}


@pytest.mark.parametrize(("name", "value"), [("share", 0.0), ("scale", float("nan")), ("scale", float("inf"))])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["cart"].options(**{name: value})
