from __future__ import annotations

import pytest
import torch
from spaces import diagonal, merged, outcome, ties

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"k": 2}, {"idempotence", "identity", "linearity"}),
    ({"inner": "ties", "k": 4}, {"idempotence", "identity", "linearity"}),
    ({"balance": 1.0}, {"idempotence", "linearity"}),
]


def test_what_lies_outside_the_shared_space_is_left_out():
    torch.testing.assert_close(merged("ctm", [diagonal(3.0, 1.0), diagonal(2.0, 0.0)], k=1), diagonal(5.0, 0.0).dense())


def test_the_space_belongs_to_the_many_or_to_the_large():
    updates = [diagonal(100.0, 0.0), diagonal(0.0, 1.0), diagonal(0.0, 1.0)]

    many, large = (outcome("ctm", updates, k=1, balance=balance) for balance in (0.0, 1.0))

    torch.testing.assert_close(many.dense(), diagonal(0.0, 2.0).dense())
    torch.testing.assert_close(large.dense(), diagonal(100.0, 0.0).dense())
    assert (many.report["held"], large.report["held"]) == pytest.approx((2 / 3, 10000 / 10002))


def test_in_a_space_that_holds_everything_linear_is_the_sum(draw):
    x, y = draw(3), draw(5)

    torch.testing.assert_close(merged("ctm", [x, y], (2.0, -1.0), k=8), 2 * x.dense() - y.dense())


@pytest.mark.parametrize("inner", ["linear", "ties"])
@pytest.mark.parametrize(("k", "balance"), [(4, 0.0), (7, 1.0)])
def test_it_is_the_dense_formula(draw, inner, k, balance):
    updates = [draw(3), draw(8, scale=2.0), draw(5, scale=0.5)]
    stack = torch.stack([update.dense() for update in updates])
    even = stack / torch.linalg.matrix_norm(stack)[:, None, None] ** (1 - balance)

    def leading(matrices):
        return torch.linalg.svd(torch.cat(list(matrices), dim=1)).U[:, :k]

    u, v = leading(even), leading(even.mT)
    held = [0.0, 1e-300]
    while held[-1] - held[-2] > 1e-6 * held[-1]:
        u = leading(even @ v)
        v = leading(even.mT @ u)
        held.append(float((u.T @ even @ v).square().sum()))
    cores = u.T @ stack @ v

    got = merged("ctm", updates, k=k, inner=inner, balance=balance, density=0.5)

    torch.testing.assert_close(got, u @ (ties(cores, 0.5) if inner == "ties" else cores.sum(0)) @ v.T)


def test_without_k_it_has_the_rank_of_the_largest_task(draw):
    assert outcome("ctm", [draw(3), draw(7), draw(5)]).delta.rank == 7


@pytest.mark.parametrize(("name", "value"), [("k", 0), ("density", 0.0), ("balance", -0.5), ("balance", 1.5)])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["ctm"].options(**{name: value})
