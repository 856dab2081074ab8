from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [({"rescale": "norm"}, {"identity", "idempotence", "gauge"})]


def test_an_entry_is_dropped_or_divided_by_its_probability():
    update = normal(1, 200, 300)

    found = merged("dare", update, density=0.25)

    kept = found != 0
    torch.testing.assert_close(found, torch.where(kept, update[0] / 0.25, 0.0))
    # 60,000 draws: five standard deviations are 0.009.
    assert float(kept.double().mean()) == pytest.approx(0.25, abs=0.009)


def test_the_mean_over_all_masks_is_the_weighted_sum():
    updates, weights = normal(2, 12, 16), (0.5, -2.0)
    want = 0.5 * updates[0] - 2.0 * updates[1]

    found = torch.stack([merged("dare", updates, weights, seed=seed, density=0.5) for seed in range(4000)])

    # A dropped entry adds as much variance as its square; six standard deviations of the mean of 4,000.
    spread = ((0.5 * updates[0]).square() + (2.0 * updates[1]).square()).div(4000).sqrt()
    assert bool(((found.mean(0) - want).abs() <= 6 * spread).all())


def test_updates_have_masks_of_their_own():
    one, two = merged("dare", torch.ones(2, 100, 100), (1.0, 0.0)), merged("dare", torch.ones(2, 100, 100), (0.0, 1.0))

    # Independent masks of half the entries agree on half the places.
    assert float((one == two).double().mean()) == pytest.approx(0.5, abs=0.03)


def test_another_seed_is_another_mask():
    update = normal(1, 100, 100)

    assert torch.equal(merged("dare", update, seed=1), merged("dare", update, seed=1))
    assert not torch.equal(merged("dare", update, seed=1), merged("dare", update, seed=2))


def test_the_sum_of_magnitudes_can_be_restored_instead():
    updates = normal(2, 40, 50)

    one = merged("dare", updates, (1.0, 0.0), rescale="norm", density=0.3)
    none = merged("dare", updates, (1.0, 0.0), rescale="none", density=0.3)

    assert float(one.abs().sum()) == pytest.approx(float(updates[0].abs().sum()))
    torch.testing.assert_close(one / float(one.abs().sum()), none / float(none.abs().sum()))


def test_an_update_of_zeros_has_no_norm_to_restore():
    assert not bool(merged("dare", torch.zeros(1, 4, 5), rescale="norm").any())


def test_at_density_one_nothing_is_dropped():
    updates = normal(3, 7, 9)

    torch.testing.assert_close(
        merged("dare", updates, (1.0, 2.0, 3.0), density=1.0), updates[0] + 2 * updates[1] + 3 * updates[2]
    )


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_a_density_is_a_share(density):
    with pytest.raises(BadOption, match="density"):
        MERGE["dare"].options(density=density)
