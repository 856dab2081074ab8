from __future__ import annotations

from math import ceil

import pytest
import torch
from spaces import merged, outcome

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"sign": "same", "rounds": 1}, {"gauge", "idempotence", "identity", "linearity"}),
]


def units(side, *sizes):
    """One unit of each size along its axis, as (axis, size)."""
    b, a = torch.zeros(side, len(sizes)).double(), torch.zeros(len(sizes), side).double()
    for at, (axis, size) in enumerate(sizes):
        b[axis, at], a[at, axis] = 1.0, size
    return LowRank(b=b, a=a)


# The sum is (3, 1, 1) on the diagonal.
X, Y = units(3, (0, 2.0), (1, 1.0)), units(3, (0, 1.0), (2, 1.0))


def test_of_each_adapter_the_units_stay_that_others_agree_with():
    got = outcome("rank-saliency", [X, Y], density=0.5, rounds=1)

    # Of X 2 · (2 · 3) against 1 · 1, of Y 1 · 3 against 1 · 1.
    assert got.dense().diagonal().tolist() == pytest.approx([3.0, 0.0, 0.0])
    assert got.report == {"units": 4, "kept": [1, 1]}


def test_opposition_counts_as_much_as_agreement_unless_told():
    x, y = units(2, (0, 5.0)), units(2, (0, -2.0), (1, 1.0))

    # −2 · 3 · 2 against 1 · 1 · 1.
    assert merged("rank-saliency", [x, y], density=0.5, rounds=1).diagonal().tolist() == pytest.approx([3.0, 0.0])
    assert merged("rank-saliency", [x, y], density=0.5, rounds=1, sign="same").diagonal().tolist() == pytest.approx(
        [5.0, 1.0]
    )


def test_each_round_looks_at_what_the_last_one_left():
    # x's unit along 0 is what makes y's first unit salient, until x drops it.
    x = units(3, (0, 1.5), (1, 2.0), (2, 1.9))
    y = units(3, (0, 1.0), (2, 0.9))

    once, often = (outcome("rank-saliency", [x, y], density=0.4, rounds=rounds) for rounds in (1, 10))

    assert once.report["kept"] == often.report["kept"] == [2, 1]
    assert once.delta.rank == 3


@pytest.mark.parametrize("rounds", [1, 4])
def test_it_is_the_dense_formula(draw, rounds):
    updates, weights, density = [draw(8), draw(6, scale=3.0)], (1.0, -0.5), 0.3
    b = [w * update.scale * update.b for w, update in zip(weights, updates, strict=True)]
    a = [update.a for update in updates]
    for turn in range(1, rounds + 1):
        total = sum(x @ y for x, y in zip(b, a, strict=True))
        for i, update in enumerate(updates):
            gamma = b[i].abs().sum(0) * a[i].abs().sum(1)
            eta = torch.einsum("ok,oi,ki->k", b[i], total, a[i])
            keep = ceil(update.rank * density ** (turn / rounds))
            best = (gamma * eta).abs().argsort(descending=True)[:keep]
            b[i], a[i] = b[i][:, best], a[i][best]

    got = merged("rank-saliency", updates, weights, density=density, rounds=rounds)

    torch.testing.assert_close(got, sum(x @ y for x, y in zip(b, a, strict=True)))


def test_the_planner_is_told_what_is_left(draw):
    method = MERGE["rank-saliency"]
    updates = [draw(8), draw(5), draw(1)]

    got = outcome("rank-saliency", updates, density=0.3)

    assert got.delta.rank == method.bound(method.options(density=0.3), [8, 5, 1]) == 3 + 2 + 1


@pytest.mark.parametrize(("name", "value"), [("density", 0.0), ("density", 1.5), ("rounds", 0)])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["rank-saliency"].options(**{name: value})
