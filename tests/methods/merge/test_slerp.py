from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.linalg.measure import norm
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.slerp import METHOD, Options

VARIANTS = [
    ({"t": 0.3}, {"permutation", "linearity"}),
    ({"lengths": "raw"}, {"linearity"}),
]


def along(*entries):
    """A 1×2 update."""
    return LowRank(b=torch.ones(1, 1, dtype=torch.float64), a=torch.tensor([entries], dtype=torch.float64))


def merged(x, y, weights=(1.0, 1.0), **options):
    return apply(METHOD, [x, y], Options(**options), Context("layer.0", weights)).dense().flatten().tolist()


def test_a_third_of_a_right_angle_with_norms_between():
    found = merged(along(1.0, 0.0), along(0.0, 4.0), t=1 / 3)

    # Thirty degrees from the first; the norm is a third of the way from 1 to 4.
    assert found == pytest.approx([2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)])


def test_raw_vectors_keep_their_lengths():
    found = merged(along(1.0, 0.0), along(0.0, 4.0), t=1 / 3, lengths="raw")

    assert found == pytest.approx([math.cos(math.pi / 6), 4 * math.sin(math.pi / 6)])


def test_raw_is_mergekits_formula(draw):
    x, y, t = draw(4, scale=2.0), draw(7), 0.3
    u, v = x.dense(), y.dense()
    theta = torch.arccos((u * v).sum() / (u.norm() * v.norm()))
    want = (torch.sin((1 - t) * theta) * u + torch.sin(t * theta) * v) / torch.sin(theta)

    found = apply(METHOD, [x, y], Options(t, "raw"), Context("layer.0", (1.0, 1.0))).dense()

    torch.testing.assert_close(found, want)


def test_the_norm_goes_evenly_from_end_to_end(draw):
    x, y = draw(4, scale=3.0), draw(7, scale=1e-2)

    found = apply(METHOD, [x, y], Options(0.25), Context("layer.0", (1.0, 1.0))).delta

    assert norm(found) == pytest.approx(0.75 * norm(x) + 0.25 * norm(y))


def test_parallel_updates_are_interpolated_along_their_line():
    assert merged(along(1.0, 1.0), along(3.0, 3.0), t=0.25) == pytest.approx([1.5, 1.5])


def test_opposite_updates_go_straight_through_zero():
    assert merged(along(1.0, 0.0), along(-1.0, 0.0), t=0.5) == pytest.approx([0.0, 0.0])
    assert merged(along(1.0, 0.0), along(-1.0, 0.0), t=0.25) == pytest.approx([0.5, 0.0])


def test_from_or_to_zero_it_goes_straight():
    assert merged(along(0.0, 0.0), along(0.0, 2.0), t=0.25) == [0.0, 0.5]


def test_a_weight_multiplies_its_input_sign_and_all():
    found = merged(along(1.0, 0.0), along(0.0, 1.0), weights=(2.0, -2.0), t=0.5)

    assert found == pytest.approx([2 * math.cos(math.pi / 4), -2 * math.sin(math.pi / 4)])


@pytest.mark.parametrize("lengths", ["linear", "raw"])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_at_the_ends_nothing_of_the_other_is_left(draw, t, lengths):
    ends = [draw(4), draw(7)]

    found = apply(METHOD, ends, Options(t, lengths), Context("layer.0", (1.0, 1.0)))

    assert found.report["coefficients"] == [1 - t, t]
    assert [part.rank for part in found.parts] == [ends[int(t)].rank]


def test_t_is_between_the_ends():
    with pytest.raises(BadOption, match="outside"):
        Options(2.0)
