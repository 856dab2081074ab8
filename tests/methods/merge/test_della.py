from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE
from loramerge.methods.merge.della import keep_probability

LOSSY = {"identity", "idempotence", "gauge"}
VARIANTS = [
    ({"elect": "none"}, LOSSY),
    ({"elect": "frequency", "rescale": "norm"}, LOSSY | {"linearity"}),
]


def test_a_larger_entry_of_a_row_is_kept_more_often():
    rows = torch.tensor([[3.0, -1.0, 2.0], [0.0, -7.0, 5.0]])

    found = keep_probability(rows, 0.5, 0.2)

    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3, 0.5], [0.3, 0.7, 0.5]], dtype=torch.float64))


def test_entries_are_kept_as_often_as_their_rank_says():
    row = torch.tensor([[1.0, -4.0, 2.0, 3.0]], dtype=torch.float64)
    many = row.repeat(20000, 1)[None]

    found = merged("della", many, density=0.5, epsilon=0.3, elect="none")

    shares = (found != 0).double().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.8, 0.4, 0.6], dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(found.mean(0), row[0], atol=0.1, rtol=0)


def test_without_a_vote_the_updates_are_added():
    updates, weights = normal(2, 30, 40), (0.5, -2.0)

    alone = [merged("della", updates, one, elect="none") for one in torch.eye(2).tolist()]
    found = merged("della", updates, weights, elect="none")

    torch.testing.assert_close(found, 0.5 * alone[0] - 2.0 * alone[1])


def test_with_a_vote_those_that_agree_are_averaged():
    tile = torch.tensor([[[3.0, -1.0]], [[-1.0, -3.0]]])

    # Weighted: (6, −1) and (−2, −3). The first place is +, so 6 / 2; the second −, so −(2·1 + 3) / (2 + 1).
    found = merged("della", tile, (2.0, 1.0), density=1.0)

    torch.testing.assert_close(found, torch.tensor([[3.0, -5 / 3]]))


def test_without_epsilon_it_is_dare_ties_with_weights_before_the_vote():
    updates, weights = normal(3, 30, 40), (0.5, 1.0, 2.0)

    found = merged("della", updates, weights, epsilon=0.0)

    torch.testing.assert_close(found, merged("dare-ties", updates, weights, weigh="before"))


def test_the_sum_of_magnitudes_can_be_restored_instead():
    update = normal(1, 40, 50)

    found = merged("della", update, elect="none", rescale="norm")

    assert float(found.abs().sum()) == pytest.approx(float(update.abs().sum()))


def test_an_entry_that_is_never_kept_is_zero():
    row = torch.tensor([[[1.0, 2.0]]]).repeat(1, 50, 1)

    found = merged("della", row, density=0.5, epsilon=0.5)

    assert found.tolist() == [[0.0, 2.0]] * 50


@pytest.mark.parametrize("options", [{"density": 0.0}, {"epsilon": -0.1}, {"density": 0.9, "epsilon": 0.2}])
def test_probabilities_stay_between_zero_and_one(options):
    with pytest.raises(BadOption):
        MERGE["della"].options(**options)
