from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spaces import diagonal, merged, outcome

VARIANTS = [
    ({"stack": "factors"}, {"gauge", "idempotence", "linearity"}),
    ({"inner": "tsv"}, {"idempotence", "linearity"}),
    ({"rescale": "none"}, {"idempotence"}),
]


X, Y = diagonal(2.0, 1.0), diagonal(2.0, 0.0)


def test_crowded_directions_are_turned_down():
    # Squares of the stack are 8 and 1 of 9: α = 1 / (1 + 8/9) and 1 / (1 + 1/9).
    got = outcome("pico", [X, Y], (0.5, 0.5), rescale="none")

    assert got.dense().diagonal().tolist() == pytest.approx([2 * 9 / 17, 0.5 * 9 / 10])
    assert got.report["crowding"] == pytest.approx(8 / 9)


def test_the_result_has_the_mean_norm():
    got = merged("pico", [X, Y], (0.5, 0.5))

    assert float(got.norm()) == pytest.approx((5**0.5 + 2) / 2)


def test_what_only_one_of_many_uses_is_kept_and_rescaled():
    updates = [diagonal(*(float(i == j) for j in range(4))) for i in range(4)]

    torch.testing.assert_close(merged("pico", updates, (0.25,) * 4), 0.5 * torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("stack", ["updates", "factors"])
@pytest.mark.parametrize(("shape", "ranks"), [((24, 40), (3, 8, 5)), ((6, 30), (5, 8, 4))])
def test_it_is_the_dense_formula(draw, stack, shape, ranks):
    updates = [draw(rank, shape, scale=2.0**i) for i, rank in enumerate(ranks)]
    weights = (0.5, 1.0, -0.2)
    stacked = [update.dense() if stack == "updates" else update.b * update.scale**0.5 for update in updates]
    u, s, _ = torch.linalg.svd(torch.cat(stacked, dim=1), full_matrices=False)
    alpha = 1 / (1 + 2 * s**2 / (s**2).sum())
    calm = sum(w * (u * alpha) @ u.T @ update.dense() for w, update in zip(weights, updates, strict=True))
    size = sum(abs(w) * update.dense().norm() for w, update in zip(weights, updates, strict=True))

    got = merged("pico", updates, weights, stack=stack)

    torch.testing.assert_close(got, calm * size / calm.norm())


def test_tsv_merges_what_was_turned_down(draw):
    updates = [draw(3), draw(5)]
    u, s, _ = torch.linalg.svd(torch.cat([update.dense() for update in updates], dim=1), full_matrices=False)
    alpha = 1 / (1 + s**2 / (s**2).sum())
    calm = [replace(update, b=(u * alpha) @ u.T @ update.b) for update in updates]

    got = merged("pico", updates, inner="tsv", rescale="none")

    torch.testing.assert_close(got, merged("tsv", calm))
