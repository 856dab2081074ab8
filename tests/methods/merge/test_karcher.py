from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context
from loramerge.methods.merge.karcher import METHOD, Options


def along(*entries):
    """A 1×n update."""
    return LowRank(b=torch.ones(1, 1, dtype=torch.float64), a=torch.tensor([entries], dtype=torch.float64))


def merged(updates, weights, **options):
    return apply(METHOD, updates, Options(**options), Context("layer.0", weights)).dense().flatten().tolist()


def test_the_mean_of_three_axes_is_their_diagonal_at_their_mean_norm():
    axes = [along(3.0, 0.0, 0.0), along(0.0, 6.0, 0.0), along(0.0, 0.0, 9.0)]

    assert merged(axes, (1 / 3,) * 3) == pytest.approx([6 / math.sqrt(3)] * 3)


@pytest.mark.parametrize("t", [0.1, 0.25, 0.8])
def test_of_two_it_is_slerp(draw, t):
    x, y = draw(4, scale=2.0), draw(7)
    slerp = MERGE["slerp"]

    found = apply(METHOD, [x, y], Options(), Context("layer.0", (1 - t, t))).dense()

    want = apply(slerp, [x, y], slerp.options(t=t), Context("layer.0", (1.0, 1.0))).dense()
    torch.testing.assert_close(found, want)


def test_the_sum_of_ways_to_the_mean_is_zero(draw):
    updates, weights = [draw(4), draw(7, scale=3.0), draw(2)], torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    found = apply(METHOD, updates, Options(), Context("layer.0", tuple(weights.tolist()))).dense().flatten()

    mean = found / found.norm()
    units = torch.stack([update.dense().flatten() / update.dense().norm() for update in updates])
    cosines = units @ mean
    ways = (cosines.acos() / cosines.acos().sin())[:, None] * (units - cosines[:, None] * mean)
    assert float((weights @ ways).norm()) < 1e-10


def test_opposite_updates_have_no_mean_direction_and_are_summed():
    assert merged([along(1.0, 0.0), along(-1.0, 0.0)], (0.5, 0.5)) == pytest.approx([0.0, 0.0])
    assert merged([along(3.0, 0.0), along(-1.0, 0.0)], (0.5, 0.5)) == pytest.approx([1.0, 0.0])


def test_updates_of_zero_count_for_nothing_and_alone_are_zero():
    assert merged([along(2.0, 0.0), along(0.0, 0.0)], (1.0, 1.0)) == pytest.approx([2.0, 0.0])
    assert merged([along(0.0, 0.0)] * 2, (0.5, 0.5)) == [0.0, 0.0]


def test_without_an_iteration_it_is_the_normalised_mean_of_directions():
    found = merged([along(1.0, 0.0), along(0.0, 5.0)], (0.75, 0.25), iterations=0)

    # Norm ¾·1 + ¼·5 = 2 along (3, 1).
    assert found == pytest.approx([6 / math.sqrt(10), 2 / math.sqrt(10)])


@pytest.mark.parametrize(
    "options",
    [{"iterations": -1}, {"tolerance": -1.0}, {"tolerance": float("nan")}, {"tolerance": float("inf")}],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(BadOption):
        Options(**options)
