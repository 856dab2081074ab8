from __future__ import annotations

import pytest
import torch
from spaces import diagonal, merged, outcome

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"k": 3}, {"idempotence", "identity", "linearity"}),
]


X, Y = diagonal(2.0, 0.0, 0.0), diagonal(1.0, 1.0, 0.0)


def test_singular_values_of_the_sum_become_their_mean():
    torch.testing.assert_close(merged("iso-c", [X, Y]), diagonal(2.0, 2.0, 0.0).dense())


def test_only_what_is_kept_is_averaged():
    torch.testing.assert_close(merged("iso-c", [X, Y], k=1), diagonal(3.0, 0.0, 0.0).dense())


def test_directions_that_the_sum_does_not_have_are_not_filled_up():
    assert outcome("iso-c", [X, Y], k=3).report["k"] == 2


def test_without_k_it_has_the_rank_of_the_largest_task(draw):
    assert outcome("iso-c", [draw(3), draw(7), draw(5)]).delta.rank == 7


@pytest.mark.parametrize("k", [1, 6, 16])
def test_it_is_the_dense_formula(draw, k):
    updates = [draw(3), draw(8, scale=2.0), draw(5, scale=0.5)]
    u, s, vh = torch.linalg.svd(sum(update.dense() for update in updates))

    got = merged("iso-c", updates, k=k)

    torch.testing.assert_close(got, s[:k].mean() * u[:, :k] @ vh[:k])


def test_the_planner_is_told_the_rank():
    method = MERGE["iso-c"]

    assert (method.bound(method.options(), [4, 16, 8]), method.bound(method.options(k=3), [4, 16])) == (16, 3)


def test_k_is_at_least_one():
    with pytest.raises(BadOption, match="k is 0"):
        MERGE["iso-c"].options(k=0)
