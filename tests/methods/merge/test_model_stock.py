from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.model_stock import METHOD, ratio


def along(*entries):
    """A 1×n update."""
    return LowRank(b=torch.ones(1, 1, dtype=torch.float64), a=torch.tensor([entries], dtype=torch.float64))


def merged(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights)).dense().flatten().tolist()


def test_two_at_sixty_degrees_keep_two_thirds_of_their_mean():
    x, y = along(2.0, 0.0), along(1.0, 3**0.5)

    # cos θ = ½, so t = 2·½ / (1 + ½) = ⅔ of the mean (1.5, √3/2).
    assert merged([x, y], 0.5, 0.5) == pytest.approx([1.0, 3**0.5 / 3])


def test_three_at_one_angle_follow_the_formula():
    cosines = torch.full((3, 3), 0.2, dtype=torch.float64).fill_diagonal_(1.0)

    assert ratio(cosines) == pytest.approx(3 * 0.2 / (1 + 2 * 0.2))


def test_what_agrees_is_the_mean_and_what_is_orthogonal_is_nothing():
    assert merged([along(1.0, 0.0), along(3.0, 0.0)], 0.5, 0.5) == pytest.approx([2.0, 0.0])
    assert merged([along(1.0, 0.0), along(0.0, 3.0)], 0.5, 0.5) == [0.0, 0.0]


def test_what_disagrees_is_not_turned_round():
    assert merged([along(1.0, 0.0), along(-1.0, 0.5)], 0.5, 0.5) == [0.0, 0.0]
    assert merged([along(1.0, 0.0), along(-1.0, 0.0)], 0.5, 0.5) == [0.0, 0.0]


def test_a_module_that_one_adapter_has_is_kept():
    assert merged([along(1.0, 2.0)], 0.5) == pytest.approx([0.5, 1.0])
