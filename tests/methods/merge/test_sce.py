from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

# Without a selection a zero neither varies nor votes.
VARIANTS = [({"select": 1.0}, {"linearity"}), ({"select": 0.5}, {"linearity", "zero"})]


def by_definition(updates, weights, select):
    """All at once, by sorting."""
    variance = updates.var(0, correction=0)
    kept = int(select * int((variance > 0).sum()))
    least = variance.flatten().sort(descending=True).values[kept - 1]
    left = updates * (variance >= least)
    shares = torch.tensor(weights, dtype=updates.dtype) * left.square().mean((1, 2))
    agree = left.sign() == torch.where(left.sum(0) >= 0, 1.0, -1.0)
    parts = (shares / shares.sum())[:, None, None] * agree
    total = parts.sum(0)
    return (parts * left).sum(0) / total.where(total > 0, 1.0)


def test_two_updates_are_merged_by_hand():
    updates = torch.tensor([[[4.0, 1.0, 2.0, 0.0]], [[-2.0, 1.0, 4.0, 0.0]]])

    # Variances 9, 0, 1, 0: of the two entries that vary half is one, the first. What is left has squares of
    # 16 and 4; the sum 2 elects +, and 4 alone agrees.
    assert merged("sce", updates, select=0.5).tolist() == [[4.0, 0.0, 0.0, 0.0]]
    # All that varies: squares 20 and 20, so at the third place both count alike.
    assert merged("sce", updates, select=0.9).tolist() == [[4.0, 0.0, 0.0, 0.0]]
    # Without a selection: squares 21 and 21.
    assert merged("sce", updates, select=1.0).tolist() == [[4.0, 1.0, 3.0, 0.0]]


@pytest.mark.parametrize("select", [0.1, 0.5, 1.0])
def test_it_is_the_definition_on_dense_updates(select):
    updates, weights = normal(4, 30, 40), (1.0, 2.0, 0.5, 1.0)

    found = merged("sce", updates, weights, select=select)

    torch.testing.assert_close(found, by_definition(updates, weights, select))


def test_only_ratios_of_weights_matter():
    updates = normal(3, 20, 30)

    torch.testing.assert_close(merged("sce", updates, (2.0, 4.0, 6.0)), merged("sce", updates, (1.0, 2.0, 3.0)))


@pytest.mark.parametrize("select", [0.5, 1.0])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e30])
def test_squares_of_tiny_and_huge_updates_fit(select, size):
    updates = normal(3, 20, 30)

    found = merged("sce", (updates * size).float(), select=select)

    torch.testing.assert_close(found.double() / size, merged("sce", updates, select=select), rtol=1e-4, atol=1e-4)


def test_updates_of_zeros_make_zero():
    assert not bool(merged("sce", torch.zeros(2, 3, 4)).any())


@pytest.mark.parametrize("select", [0.0, 1.1, float("nan")])
def test_what_is_selected_is_a_share(select):
    with pytest.raises(BadOption, match="select"):
        MERGE["sce"].options(select=select)
