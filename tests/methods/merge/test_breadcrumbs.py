from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [({"density": 0.9, "gamma": 0.3}, {"identity", "idempotence"})]


def by_sorting(matrix, density, gamma):
    """The definition, by positions in the order of magnitudes."""
    order = matrix.abs().flatten().argsort(descending=True)
    kept = int(density * len(order))
    top = min(int(gamma * len(order)), len(order) - kept)
    mask = torch.zeros(len(order), dtype=matrix.dtype)
    mask[order[top : top + kept]] = 1.0
    return matrix * mask.reshape(matrix.shape)


def test_the_largest_and_the_smallest_entries_are_left_out():
    update = torch.tensor([[[8.0, -1.0, 2.0, -4.0], [0.5, 3.0, -9.0, 1.5]]])

    # Of eight entries one quarter is dropped above (8, −9), and four stay.
    found = merged("breadcrumbs", update, density=0.5, gamma=0.25)

    assert found.tolist() == [[0.0, 0.0, 2.0, -4.0], [0.0, 3.0, 0.0, 1.5]]


@pytest.mark.parametrize(("density", "gamma"), [(0.3, 0.1), (0.7, 0.0), (0.9, 0.3), (1.0, 0.5), (0.001, 0.99)])
def test_it_is_the_weighted_sum_of_what_sorting_leaves(density, gamma):
    updates, weights = normal(3, 40, 50), (0.5, 1.0, -2.0)

    found = merged("breadcrumbs", updates, weights, density=density, gamma=gamma)

    want = sum(w * by_sorting(update, density, gamma) for w, update in zip(weights, updates, strict=True))
    torch.testing.assert_close(found, want)


def test_with_no_outliers_to_drop_it_is_magnitude_pruning():
    updates = normal(2, 10, 12)

    assert torch.equal(
        merged("breadcrumbs", updates, density=0.3, gamma=0.0), merged("magnitude", updates, density=0.3)
    )


@pytest.mark.parametrize("options", [{"density": 0.0}, {"gamma": 1.0}, {"gamma": -0.1}, {"gamma": float("nan")}])
def test_both_ends_are_shares(options):
    with pytest.raises(BadOption):
        MERGE["breadcrumbs"].options(**options)
