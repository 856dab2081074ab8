from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
from spaces import diagonal, merged, outcome, polar

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"k": 2}, {"idempotence", "identity", "linearity"}),
]


def unit(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def product(b, a):
    return LowRank(b=b[:, None], a=a[None])


def test_directions_that_are_apart_already_are_added():
    torch.testing.assert_close(merged("tsv", [diagonal(2.0, 0.0), diagonal(0.0, -3.0)]), diagonal(2.0, -3.0).dense())


def test_close_directions_are_turned_apart_by_the_same_angle():
    # Outputs at 60°, inputs at right angles: the outputs go to −15° and 75°.
    x = product(unit(1.0, 0.0), unit(1.0, 0.0))
    y = product(unit(cos(pi / 3), sin(pi / 3)), unit(0.0, 1.0))

    got = merged("tsv", [x, y])

    want = [[cos(pi / 12), cos(5 * pi / 12)], [-sin(pi / 12), sin(5 * pi / 12)]]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def test_tasks_that_coincide_share_a_direction():
    torch.testing.assert_close(merged("tsv", [diagonal(2.0, 0.0), diagonal(4.0, 0.0)]), diagonal(3.0, 0.0).dense())


def test_the_first_triplets_of_each_task_are_kept():
    x, y = diagonal(4.0, 1.0, 0.0, 0.0), diagonal(0.0, 0.0, 2.0, 3.0)

    torch.testing.assert_close(merged("tsv", [x, y], k=1), diagonal(4.0, 0.0, 0.0, 3.0).dense())


@pytest.mark.parametrize("k", [2, None])
def test_it_is_the_dense_formula(draw, k):
    updates = [draw(3), draw(8, scale=20.0), draw(5, scale=0.1)]
    weights = (1.0, 0.5, 2.0)
    tasks = [torch.linalg.svd(update.dense(), full_matrices=False) for update in updates]
    kept = [min(k or update.rank, update.rank) for update in updates]
    u = torch.cat([task.U[:, :r] for task, r in zip(tasks, kept, strict=True)], dim=1)
    s = torch.cat([w * task.S[:r] for task, r, w in zip(tasks, kept, weights, strict=True)])
    v = torch.cat([task.Vh[:r].T for task, r in zip(tasks, kept, strict=True)], dim=1)

    got = merged("tsv", updates, weights, k=k)

    torch.testing.assert_close(got, polar(u) * s @ polar(v).T)


def test_the_rank_is_that_of_the_triplets_kept(draw):
    assert outcome("tsv", [draw(3), draw(5)], k=2).delta.rank == 4


def test_k_is_at_least_one():
    with pytest.raises(BadOption, match="k is 0"):
        MERGE["tsv"].options(k=0)
