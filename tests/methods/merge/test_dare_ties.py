from __future__ import annotations

import pytest
import torch
from entries import merged, normal
from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge

VARIANTS = [
    ({"rescale": "norm", "sign": "frequency"}, {"identity", "idempotence", "gauge"}),
    ({"weigh": "before"}, {"identity", "idempotence", "gauge", "linearity"}),
]


def dropped(stacked, **options):
    """Each update as `dare` leaves it: the masks are the same."""
    return torch.stack([merged("dare", stacked, one, **options) for one in torch.eye(len(stacked)).tolist()])


def test_a_disagreement_is_settled_by_the_larger_total():
    tile = torch.tensor([[[3.0, -1.0]], [[-1.0, -3.0]]])

    assert merged("dare-ties", tile, density=1.0).tolist() == [[3.0, -2.0]]


@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("rescale", ["expectation", "norm", "none"])
def test_what_is_left_after_dropping_is_merged_as_peft_does_bit_for_bit(sign, rescale):
    stacked, weights = normal(3, 40, 50, dtype=torch.float32), (0.3, 0.7, 1.1)
    left = dropped(stacked, density=0.4, rescale=rescale)

    found = merged("dare-ties", stacked, weights, density=0.4, sign=sign, rescale=rescale)

    want = disjoint_merge(left * torch.tensor(weights)[:, None, None], calculate_majority_sign_mask(left, sign))
    assert torch.equal(found, want)


def test_weights_before_the_vote_are_divided_out_again():
    stacked, weights = normal(3, 40, 50), (0.3, 0.7, 1.1)
    left = dropped(stacked, density=0.4) * torch.tensor(weights, dtype=torch.float64)[:, None, None]
    agree = left.sign() == torch.where(left.sum(0) >= 0, 1.0, -1.0)

    found = merged("dare-ties", stacked, weights, density=0.4, weigh="before")

    shares = (agree * torch.tensor(weights, dtype=torch.float64)[:, None, None]).sum(0)
    torch.testing.assert_close(found, (left * agree).sum(0) / shares.where(shares > 0, 1.0))
