from __future__ import annotations

import pytest
import torch
from entries import merged, normal
from peft.utils.merge_utils import magnitude_prune

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE


def test_the_largest_entries_of_each_update_are_added_with_its_weight():
    stacked = torch.tensor([[[4.0, 1.0, 2.0, -3.0]], [[-1.0, 5.0, 6.0, 2.0]]])

    # Of the first 4 and −3 stay, of the second 5 and 6.
    assert merged("magnitude", stacked, (1.0, 0.5), density=0.5).tolist() == [[4.0, 2.5, 3.0, -3.0]]


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_it_is_what_peft_makes_of_dense_updates_bit_for_bit(density):
    stacked, weights = normal(3, 40, 50, dtype=torch.float32), (0.3, 0.7, -1.1)

    want = magnitude_prune(list(stacked), torch.tensor(weights), density)

    assert torch.equal(merged("magnitude", stacked, weights, density=density), want)


def test_equal_magnitudes_at_the_threshold_all_survive():
    stacked = torch.tensor([[[1.0, -2.0, 2.0, 0.0]]])

    assert merged("magnitude", stacked, density=0.25).tolist() == [[0.0, -2.0, 2.0, 0.0]]


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_a_density_is_a_share(density):
    with pytest.raises(BadOption, match="density"):
        MERGE["magnitude"].options(density=density)
