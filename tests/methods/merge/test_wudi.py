from __future__ import annotations

import pytest
import torch
from spaces import matrix, merged

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"solver": "adam", "steps": 30, "lr": 0.01}, {"idempotence", "linearity", "scale"}),
]


def test_on_each_tasks_rows_it_does_what_the_task_does():
    # D (2, 0)ᵀ = 4 and D (1, 1)ᵀ = 2.
    torch.testing.assert_close(merged("wudi", [matrix((2.0, 0.0)), matrix((1.0, 1.0))]), matrix((2.0, 0.0)).dense())


@pytest.mark.parametrize("cutoff", [0.0, 0.1])
def test_tasks_with_the_same_rows_are_averaged(draw, cutoff):
    update = draw(6)

    got = merged("wudi", [update, update.times(3.0)], cutoff=cutoff)

    torch.testing.assert_close(got, 2.0 * update.dense())


def test_nothing_interferes_where_rows_are_independent(draw):
    updates = [draw(3), draw(8, scale=20.0), draw(5, scale=0.1)]

    got = merged("wudi", updates, cutoff=0.0)

    for update in updates:
        torch.testing.assert_close(got @ update.dense().T, update.dense() @ update.dense().T)


@pytest.mark.parametrize(("shape", "ranks"), [((24, 40), (3, 8, 5)), ((24, 10), (4, 5, 6))])
def test_it_is_the_dense_formula(draw, shape, ranks):
    updates = [draw(rank, shape, scale=2.0**i) for i, rank in enumerate(ranks)]
    parts = [update.dense() for update in updates]
    looked = [part.T @ part / part.norm() ** 2 for part in parts]

    want = sum(part @ g for part, g in zip(parts, looked, strict=True)) @ torch.linalg.pinv(sum(looked), rtol=1e-10)

    torch.testing.assert_close(merged("wudi", updates, cutoff=1e-9), want, rtol=1e-6, atol=1e-6)


def loss(point, parts):
    return sum(((point - part) @ part.T).square().sum() / part.square().sum() for part in parts)


def test_adam_is_the_published_loop_where_the_basis_is_that_of_the_weights():
    # Rows of [X Y] and columns of [X; Y] are at right angles: both bases are the identity.
    updates = [matrix((4.0, 0.0), (0.0, 1.0)), matrix((2.0, 0.0), (0.0, -2.0))]
    parts = [update.dense() for update in updates]
    point = sum(parts).requires_grad_()
    optimizer = torch.optim.Adam([point], lr=1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss(point, parts).backward()
        optimizer.step()

    got = merged("wudi", updates, solver="adam", steps=50, lr=1e-3)

    torch.testing.assert_close(got, point.detach())


def test_adam_goes_from_the_sum_towards_the_closed_form(draw):
    updates = [draw(3), draw(4)]
    parts = [update.dense() for update in updates]

    path = [merged("wudi", updates, solver="adam", steps=steps, lr=1e-3) for steps in (0, 100, 400)]

    torch.testing.assert_close(path[0], sum(parts))
    assert loss(path[0], parts) > loss(path[1], parts) > loss(path[2], parts)


def test_nearly_parallel_rows_can_be_cut_off():
    x, y = matrix((1.0, 0.0)), matrix((3.0, 3e-3))

    assert float(merged("wudi", [x, y], cutoff=0.0).norm()) > 100
    assert merged("wudi", [x, y]).flatten().tolist() == pytest.approx([2.0, 0.001], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "value"), [("cutoff", -1.0), ("cutoff", 1.0), ("steps", -1), ("lr", 0.0), ("lr", float("inf"))]
)
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["wudi"].options(**{name: value})
