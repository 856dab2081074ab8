from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.multi_slerp import METHOD


def along(*entries):
    """A 1×n update."""
    return LowRank(b=torch.ones(1, 1, dtype=torch.float64), a=torch.tensor([entries], dtype=torch.float64))


def merged(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights)).dense()


def test_a_large_update_does_not_outvote_a_small_one():
    found = merged([along(1.0, 0.0), along(0.0, 5.0)], 0.5, 0.5)

    assert found.flatten().tolist() == pytest.approx([3 / math.sqrt(2)] * 2)


def test_it_is_what_mergekits_steps_come_to(draw):
    updates, weights = [draw(4), draw(7, scale=3.0), draw(2)], torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    vectors = torch.stack([update.dense().flatten() for update in updates])
    norms = vectors.norm(dim=1)
    units = vectors / norms[:, None]
    mean = weights @ units / (weights @ units).norm()
    step = weights @ (units - (units @ mean)[:, None] * mean)

    found = merged(updates, *weights.tolist())

    assert float(step.norm()) < 1e-14
    torch.testing.assert_close(found.flatten(), mean * (weights @ norms))


def test_a_negative_weight_means_the_opposite_update(draw):
    x, y = draw(4), draw(3)

    torch.testing.assert_close(merged([x, y], 0.5, -0.5), merged([x, y.times(-1.0)], 0.5, 0.5))


def test_opposite_updates_are_summed():
    assert merged([along(3.0, 0.0), along(-1.0, 0.0)], 0.5, 0.5).flatten().tolist() == pytest.approx([1.0, 0.0])
